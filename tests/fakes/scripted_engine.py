"""An engine whose output the test chooses: the product's own gRPC server over a core that plays scripts.

It runs in a thread of the test process with a loop of its own, so that a test can look at what the engine was asked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from engine.admission import check_adapter
from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats
from engine.errors import EngineError
from engine.server import InferenceService, create_server

DEADLINE_S = 100.0

Action = EngineDelta | EngineError | threading.Event
"""What a script does next: send a delta, fail, or wait until the test sets the event."""
Script = Callable[[EngineRequest], Iterable[Action]]


class ScriptedCore:
    """An ``EngineCore`` that plays ``script`` for every request."""

    def __init__(self) -> None:
        self.script: Script = lambda _request: ()
        self.healthy = True
        self.vision = True
        self.adapters: tuple[str, ...] = ()
        self.context_tokens = 4096
        self.requests: list[EngineRequest] = []
        self.running: set[str] = set()

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Play the script."""
        check_adapter(request, self.limits())
        self.requests.append(request)
        self.running.add(request.request_id)
        try:
            for action in self.script(request):
                if isinstance(action, EngineError):
                    raise action
                if isinstance(action, threading.Event):
                    async with asyncio.timeout(DEADLINE_S):
                        await asyncio.to_thread(action.wait, DEADLINE_S)
                else:
                    yield action
        finally:
            self.running.discard(request.request_id)

    async def abort(self, request_id: str) -> None:
        """Do nothing: sequences end when their iterator is closed."""

    async def health(self) -> bool:
        """Return what the test set."""
        return self.healthy

    def limits(self) -> EngineLimits:
        """Return limits like a small engine's."""
        return EngineLimits(
            context_tokens=self.context_tokens,
            max_sequences=8,
            max_queued=8,
            vocab_size=1000,
            vision=self.vision,
            grammar=True,
            logprobs=True,
            core="scripted",
            model="scripted",
            adapters=self.adapters,
        )

    def stats(self) -> EngineStats:
        """Return no counts."""
        return EngineStats(len(self.running), 0, len(self.requests), 0, 0, 0)

    async def close(self) -> None:
        """Do nothing."""


class ScriptedEngine:
    """The server around a ``ScriptedCore``; a context manager."""

    def __init__(self, socket_path: Path) -> None:
        self.endpoint = f"unix:{socket_path}"
        self.core = ScriptedCore()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: Any = None

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving and end the thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def stop(self) -> None:
        """Drop every connection at once, as a killed process does."""
        if self._server is not None:
            server, self._server = self._server, None
            self._call(server.stop(0))

    def start(self) -> None:
        """Serve again after ``stop``."""
        self._call(self._start())

    async def _start(self) -> None:
        service = InferenceService()
        service.core = self.core
        self._server = create_server(service, self.endpoint)
        await self._server.start()

    def _call(self, coroutine: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(DEADLINE_S)
