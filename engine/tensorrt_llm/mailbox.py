"""Carries deltas from the task that follows the library to the consumer, within one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from engine.core import join_deltas

if TYPE_CHECKING:
    from engine.core import EngineDelta
    from engine.errors import EngineError


class Mailbox:
    """Holds what the consumer has not taken yet; deltas that wait are handed over as one."""

    def __init__(self) -> None:
        self._deltas: deque[EngineDelta] = deque()
        self._error: EngineError | None = None
        self._arrived = asyncio.Event()
        self.is_closed = False
        """Whether the sequence's end is in it; nothing is taken after that."""

    def put(self, delta: EngineDelta) -> None:
        """Add a delta."""
        if not self.is_closed:
            self.is_closed = delta.finish_reason is not None
            self._deltas.append(delta)
            self._arrived.set()

    def fail(self, error: EngineError) -> None:
        """End the sequence with an error, which follows the deltas that wait."""
        if not self.is_closed:
            self.is_closed = True
            self._error = error
            self._arrived.set()

    async def take(self) -> EngineDelta:
        """Wait for at least one delta and return all that are ready as one.

        Raises:
            EngineError: the sequence failed, and nothing precedes the failure.
        """
        await self._arrived.wait()
        if not self._deltas and self._error is not None:
            raise self._error
        joined = join_deltas(self._deltas)
        self._deltas.clear()
        if self._error is None:
            self._arrived.clear()
        return joined
