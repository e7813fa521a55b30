"""One sequence as an RPC of its own, as every server of the protocol understands it, Triton among them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from engine.errors import EngineError, EngineUnavailableError
from engine.triton.failures import translated
from engine.wire import decode_delta, encode_request

if TYPE_CHECKING:
    from engine.core import EngineRequest, Receiver


class PlainRun:
    """A sequence that is read by a task."""

    def __init__(self, stub: Any, request: EngineRequest, receiver: Receiver) -> None:
        """Send the request and read what comes, in a task."""
        self._task = asyncio.create_task(self._run(stub, request, receiver))

    def cancel(self, _number: int) -> None:
        """End it if it still runs."""
        self._task.cancel()

    @staticmethod
    async def _run(stub: Any, request: EngineRequest, receiver: Receiver) -> None:
        call = stub.ModelStreamInfer()
        try:
            with translated():
                await call.write(encode_request(request))
                await call.done_writing()
                while (message := await call.read()) is not grpc.aio.EOF:
                    delta = decode_delta(message)
                    receiver.delta(delta)
                    if delta.finish_reason is not None:
                        return
            failure = "the engine ended a sequence without a finish reason"
            receiver.failed(EngineUnavailableError(failure))
        except EngineError as error:
            receiver.failed(error)
        finally:
            call.cancel()
