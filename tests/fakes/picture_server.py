"""Servers of pictures, well-behaved and not, and a listener that must never be reached."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Self

DEADLINE_S = 100.0

Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request that a server got, and the connection to answer on."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head.decode("latin-1")
        self.path = self.head.split(" ")[1] if self.head.count(" ") > 1 else ""
        self.reader, self.writer = reader, writer

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers, names in lower case."""
        lines = self.head.split("\r\n")[1:]
        pairs = [line.partition(":") for line in lines if line]
        return {name.lower(): value.strip() for name, _, value in pairs}

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"", status: str = "200 OK", **headers: str) -> None:
        """Send a whole answer; header names are written with underscores."""
        fields = {"content-length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        head = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
        await self.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    async def closed(self) -> None:
        """Wait until the client has closed its side."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.reader.read(1024):
                pass


class PictureServer:
    """An HTTP server in a thread whose every answer is the handler's; a context manager."""

    def __init__(
        self, handler: Handler, *, host: str | None = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.port = port
        self._handler = handler
        self._host = host
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        """Drop everything and end the thread."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            async with asyncio.timeout(DEADLINE_S):
                exchange = Exchange(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                self.exchanges.append(exchange)
                await self._handler(exchange)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, as hostile answers are meant to make it, or the test is over
        finally:
            writer.transport.abort()

    def _call(self, coroutine: Any) -> None:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.result(DEADLINE_S)


def serving(files: dict[str, bytes]) -> Handler:
    """Return a handler that serves files by their path and 404 for all others."""

    async def handle(exchange: Exchange) -> None:
        body = files.get(exchange.path)
        if body is None:
            await exchange.answer(status="404 Not Found")
        else:
            await exchange.answer(body)

    return handle


class ForbiddenListener:
    """Listens on every address of this machine, IPv4 and IPv6, and counts whoever connects; a context manager."""

    def __init__(self) -> None:
        dual = socket.has_dualstack_ipv6()
        self._socket = socket.create_server(
            ("::" if dual else "0.0.0.0", 0),
            family=socket.AF_INET6 if dual else socket.AF_INET,
            dualstack_ipv6=dual,
            backlog=256,
        )
        self.port: int = self._socket.getsockname()[1]
        self.count = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(DEADLINE_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.count += 1
            connection.close()
