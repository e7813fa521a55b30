"""The server's end of step streams: many sequences side by side, and one message for what a step drew for all of them.

The end of a client's connection is the end of its sequences.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.step_messages import CANCEL, LENGTH, encode_news, framed, number_of
from engine.triton.protocol import MAX_MESSAGE_BYTES, service_pb2
from engine.wire import decode_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.core import EngineCore, EngineDelta

logger = logging.getLogger(__name__)


class StepServer:
    """Listens at a unix socket and runs a session for each connection."""

    def __init__(self, core_of: Callable[[str], EngineCore], path: str) -> None:
        """Prepare. ``core_of`` returns the core that serves a model, or raises an ``EngineError``."""
        self._core_of = core_of
        self._path = Path(path)
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; a socket file that a killed process left behind is replaced.

        Raises:
            OSError: the path cannot be used, mostly because it is too long.
        """
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def stop(self) -> None:
        """End all sessions and stop listening."""
        if self._server is None:
            return
        self._server.close()
        sessions = tuple(self._sessions)
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.current_task()
        if session is not None:
            self._sessions.add(session)
            session.add_done_callback(self._sessions.discard)
        # A client that leaves, or a stop: both are the ordinary end of a session.
        with suppress(ConnectionError, asyncio.CancelledError):
            try:
                await StepSession(self._core_of, reader, writer).run()
            finally:
                writer.transport.abort()


class StepSession:
    """One client's stream.

    What is drawn while the client is behind waits for the next message, so a slow reader gets fewer, larger ones.
    """

    def __init__(
        self, core_of: Callable[[str], EngineCore], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Prepare; the connection is the caller's to close."""
        self._core_of = core_of
        self._reader = reader
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._news: list[tuple[int, EngineDelta | EngineError]] = []
        self._has_news = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client leaves.

        Raises:
            ConnectionError: the client left while it was written to.
        """
        reading = asyncio.create_task(self._read())
        reading.add_done_callback(lambda _: self._has_news.set())
        try:
            while not reading.done():
                await self._has_news.wait()
                self._has_news.clear()
                news, self._news = self._news, []
                for message in encode_news(news):
                    self._writer.write(framed(message))
                await self._writer.drain()
        finally:
            tasks = (reading, *self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        """Start and cancel sequences as the client asks, until it leaves or breaks the protocol."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
                if length > MAX_MESSAGE_BYTES:
                    logger.error("a client announced a message of %d bytes", length)
                    return
                self._take(service_pb2.ModelInferRequest.FromString(await self._reader.readexactly(length)))

    def _take(self, message: service_pb2.ModelInferRequest) -> None:
        number = number_of(message) or 0
        task = self._tasks.get(number)
        if CANCEL in message.parameters:
            if task is not None:
                task.cancel()
        elif task is None:
            self._tasks[number] = started = asyncio.create_task(self._run(number, message))
            started.add_done_callback(lambda ended: self._note_end(number, ended))

    async def _run(self, number: int, message: service_pb2.ModelInferRequest) -> None:
        """Run one sequence; cancelling the task closes the core's iterator, which frees its slot."""
        core = self._core_of(message.model_name)
        async with aclosing(core.generate(decode_request(message))) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                self._note(number, delta)

    def _note(self, number: int, content: EngineDelta | EngineError) -> None:
        self._news.append((number, content))
        self._has_news.set()

    def _note_end(self, number: int, task: asyncio.Task[None]) -> None:
        """Forget a sequence; tell the client when it has failed."""
        del self._tasks[number]
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, EngineError):
            logger.error("sequence %d failed", number, exc_info=error)
            error = EngineError("the engine failed")
        self._note(number, error)
