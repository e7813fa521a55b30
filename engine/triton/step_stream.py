"""The client's end of a step stream: one connection for all sequences at a server, no task for any of them."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from engine.errors import EngineUnavailableError
from engine.request_frame import framed_request
from engine.step_messages import LENGTH, deliver, encode_cancel, framed
from engine.triton.protocol import service_pb2

if TYPE_CHECKING:
    from typing import Self

    from engine.core import EngineRequest, Receiver


class StepStream(asyncio.Protocol):
    """The connection. What arrives is handed to the receivers within the call that brings it."""

    def __init__(self) -> None:
        self.is_open = False
        self._receivers: dict[int, Receiver] = {}
        self._numbers = itertools.count(1)
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, path: str) -> Self:
        """Open the stream.

        Raises:
            EngineUnavailableError: nobody listens there.
        """
        try:
            _, stream = await asyncio.get_running_loop().create_unix_connection(cls, path)
        except OSError as error:
            message = "the engine cannot be reached"
            raise EngineUnavailableError(message) from error
        return stream

    def start(self, request: EngineRequest, receiver: Receiver) -> int:
        """Send a request and return its number; should the stream break, the receiver is told.

        Raises:
            EngineUnavailableError: the stream has broken already.
        """
        if not self.is_open:
            message = "the engine was lost or cannot be reached"
            raise EngineUnavailableError(message)
        number = next(self._numbers)
        pieces = framed_request(number, request)
        self._receivers[number] = receiver
        self._write(*pieces)
        return number

    def cancel(self, number: int) -> None:
        """Let go of a sequence's receiver, and end the sequence if it still runs."""
        if self._receivers.pop(number, None) is not None:
            self._write(framed(encode_cancel(number)))

    def close(self) -> None:
        """End the stream and everything on it."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, *pieces: bytes | memoryview) -> None:
        if self._transport is not None and self.is_open:
            self._transport.writelines(pieces)

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # a stream's is one
        """Begin."""
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Hand out every message that is whole."""
        data = self._rest + data if self._rest else data
        start = 0
        while (body := start + LENGTH.size) <= len(data):
            end = body + LENGTH.unpack_from(data, start)[0]
            if end > len(data):
                break
            deliver(service_pb2.ModelStreamInferResponse.FromString(data[body:end]), self._receivers)
            start = end
        self._rest = data[start:]

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the receivers need no details
        """Tell all receivers that are left."""
        self.is_open = False
        receivers, self._receivers = self._receivers, {}
        for receiver in receivers.values():
            receiver.failed(EngineUnavailableError("the engine was lost or cannot be reached"))
