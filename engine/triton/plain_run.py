"""One sequence as an RPC of its own, as every server of the protocol understands it, Triton among them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from engine.errors import EngineError, EngineUnavailableError
from engine.triton.failures import translated
from engine.wire import decode_delta, encode_request

if TYPE_CHECKING:
    from engine.core import EngineRequest, Receiver


END_TIMEOUT_S = 5.0
"""So long the server may take to end an RPC after its last response."""


class PlainRun:
    """A sequence that is read by a task."""

    def __init__(self, stub: Any, request: EngineRequest, receiver: Receiver) -> None:
        """Send the request and read what comes, in a task."""
        self._has_finished = False
        self.task = asyncio.create_task(self._run(stub, request, receiver))

    def cancel(self, _number: int) -> None:
        """End it if it still runs. After its last response the RPC ends by itself, in a moment."""
        if not self._has_finished:
            self.task.cancel()

    async def _run(self, stub: Any, request: EngineRequest, receiver: Receiver) -> None:
        call = stub.ModelStreamInfer()
        try:
            with translated():
                await call.write(encode_request(request))
                await call.done_writing()
                while (message := await call.read()) is not grpc.aio.EOF:
                    delta = decode_delta(message)
                    self._has_finished = delta.finish_reason is not None
                    receiver.delta(delta)
                    if self._has_finished:
                        await read_end(call)
                        return
            failure = "the engine ended a sequence without a finish reason"
            receiver.failed(EngineUnavailableError(failure))
        except EngineError as error:
            receiver.failed(error)
        finally:
            call.cancel()


async def read_end(call: Any) -> None:
    """Read on until the server has ended an RPC.

    Triton never lets go of a request whose RPC is cancelled between its last response and its end, if the server is
    told to stop at that moment: it then waits for it until its exit timeout.
    """
    with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
        async with asyncio.timeout(END_TIMEOUT_S):
            while await call.read() is not grpc.aio.EOF:
                pass
