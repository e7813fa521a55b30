"""A receiver that writes down what it is told."""

from __future__ import annotations

import asyncio

from engine.core import EngineDelta
from engine.errors import EngineError


class Recorder:
    """Keeps deltas, and the error if there is one."""

    def __init__(self) -> None:
        self.deltas: list[EngineDelta] = []
        self.error: EngineError | None = None
        self._news = asyncio.Event()

    def ids(self, token_ids: tuple[int, ...]) -> None:
        """Keep ids as the delta that they are."""
        self.delta(EngineDelta(token_ids))

    def delta(self, delta: EngineDelta) -> None:
        """Keep a delta."""
        self.deltas.append(delta)
        self._news.set()

    def failed(self, error: EngineError) -> None:
        """Keep the error."""
        self.error = error
        self._news.set()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more may come."""
        return self.error is not None or bool(self.deltas and self.deltas[-1].finish_reason)

    async def ended(self, deadline_s: float = 100) -> None:
        """Wait for the end of the sequence."""
        async with asyncio.timeout(deadline_s):
            while not self.has_ended:
                self._news.clear()
                await self._news.wait()
