"""What the routes of one API process share: the chat service, the engine, options, and whether new work is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from api.chat.engine import Engine
from api.chat.service import ChatService
from api.errors import UnavailableError
from api.http.model_names import ModelNames
from api.http.options import ApiOptions
from config.runtime import ApiRuntime


class ServerState:
    """Shared by all requests; lives as long as the process."""

    def __init__(self, *, service: ChatService, engine: Engine, options: ApiOptions, runtime: ApiRuntime) -> None:
        self.service = service
        self.engine = engine
        self.options = options
        self.served_names = runtime.served_names
        self.models = ModelNames(runtime.served_names, engine, may_have_adapters=runtime.adapters)
        self.created = runtime.created
        self.status_path = runtime.status_path
        self._front_path = runtime.front_path
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    @property
    def is_draining(self) -> bool:
        """Whether the server is shutting down: running answers go on, new requests are refused."""
        return self._draining

    @property
    def is_behind_front(self) -> bool:
        """Whether the launcher still answers some of the connections, with nothing but 503."""
        return self._front_path is not None and self._front_path.exists()

    def check_accepting(self) -> None:
        """Refuse new work during shutdown.

        Raises:
            UnavailableError: while draining.
        """
        if self._draining:
            raise UnavailableError("The server is shutting down.", code="shutting_down")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count one request, or its answer, as running while the block lasts."""
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def drain(self, grace_s: float) -> int:
        """Refuse new work and wait for what runs, for ``grace_s`` seconds at most; return how much still runs."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_s):
                # Between its body and its answer a request counts as nothing for a moment.
                while self._running:
                    await self._idle.wait()
        except TimeoutError:
            pass
        return self._running


def state_of(request: Request) -> ServerState:
    """Return the state of the application that serves this request."""
    state: ServerState = request.app.state.server
    return state
