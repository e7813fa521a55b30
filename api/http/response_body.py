"""The body of a streamed response: each piece written by a plain call, with no task switch, under flow control.

ASGI sends with a coroutine per piece. Under uvicorn, pieces go to the connection's transport instead, in the same HTTP
framing; the start and the end of the response, keep-alive and disconnects stay uvicorn's. Under any other server,
pieces wait until the request's task has sent the earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from starlette.types import Receive, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

CHUNK_HEADS: Final = tuple(b"%x\r\n" % length for length in range(1024))
"""The head of a chunk by its length: looking it up takes half the time of writing it."""


class ResponseBody(Protocol):
    """Takes the pieces of one body."""

    def write(self, piece: bytes) -> bool:
        """Send a piece, not empty; false when the client is behind and ``drain`` should be awaited first."""
        ...

    def writer_between(self, front: bytes, end: bytes, encode: Callable[[str], bytes]) -> Callable[[str], bool]:
        """Return a function that writes ``front``, an encoded text and ``end`` in one piece; returns as ``write``."""
        ...

    async def drain(self) -> None:
        """Wait until the client has caught up, or has left."""
        ...

    async def finish(self, piece: bytes) -> None:
        """Send the last piece and end the response."""
        ...


def response_body(receive: Receive, send: Send) -> ResponseBody:
    """Return the body of a response whose start was sent."""
    # What is around the application wraps ``send``, but ``receive`` arrives as the server gave it: as a method of what
    # uvicorn knows of this response. If ever it does not, bodies are sent the ASGI way.
    cycle = getattr(receive, "__self__", None)
    if isinstance(cycle, RequestResponseCycle) and cycle.chunked_encoding:
        return TransportBody(cycle, send)
    return AsgiBody(send)


class TransportBody:
    """Writes to uvicorn's transport in the chunked encoding that uvicorn has announced."""

    def __init__(self, cycle: RequestResponseCycle, send: Send) -> None:
        """Take over between the start of the response and its last piece."""
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self._send = send

    def write(self, piece: bytes) -> bool:
        """Write a piece; what the socket does not take is kept by the transport, which then holds the flow."""
        if not self._cycle.disconnected:
            self._write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return not self._flow.write_paused

    def writer_between(self, front: bytes, end: bytes, encode: Callable[[str], bytes]) -> Callable[[str], bool]:
        """Return ``write`` for pieces that differ in a text only: one call, one copy."""
        cycle, flow, write, join = self._cycle, self._flow, self._write, b"".join
        constant = len(front) + len(end)
        end += b"\r\n"

        def write_between(text: str) -> bool:
            part = encode(text)
            length = constant + len(part)
            if not cycle.disconnected:
                head = CHUNK_HEADS[length] if length < len(CHUNK_HEADS) else b"%x\r\n" % length
                write(join((head, front, part, end)))
            return not flow.write_paused

        return write_between

    async def drain(self) -> None:
        """Wait until the transport has room."""
        await self._flow.drain()

    async def finish(self, piece: bytes) -> None:
        """Leave the end to uvicorn."""
        await self._send({"type": "http.response.body", "body": piece})


class AsgiBody:
    """Collects pieces and sends them on ``drain``."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> bool:
        """Keep a piece; the client counts as behind until it is sent."""
        self._pieces.append(piece)
        return False

    def writer_between(self, front: bytes, end: bytes, encode: Callable[[str], bytes]) -> Callable[[str], bool]:
        """Return ``write`` for pieces that differ in a text only."""
        return lambda text: self.write(front + encode(text) + end)

    async def drain(self) -> None:
        """Send what was kept."""
        await self._send({"type": "http.response.body", "body": self._taken(), "more_body": True})

    async def finish(self, piece: bytes) -> None:
        """Send what was kept and the last piece."""
        await self._send({"type": "http.response.body", "body": self._taken() + piece})

    def _taken(self) -> bytes:
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body
