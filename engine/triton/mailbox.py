"""A receiver that one consumer empties at its own pace."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from engine.core import EngineDelta

if TYPE_CHECKING:
    from engine.errors import EngineError


class Mailbox:
    """Keeps deltas, and then perhaps an error, until they are taken."""

    def __init__(self) -> None:
        self._contents: deque[EngineDelta | EngineError] = deque()
        self._news = asyncio.Event()

    def ids(self, token_ids: tuple[int, ...]) -> None:
        """Keep ids."""
        self.delta(EngineDelta(token_ids))

    def delta(self, delta: EngineDelta) -> None:
        """Keep a delta."""
        self._contents.append(delta)
        self._news.set()

    def failed(self, error: EngineError) -> None:
        """Keep the error that ends the sequence."""
        self._contents.append(error)
        self._news.set()

    async def take(self) -> EngineDelta:
        """Return the next delta, and wait for it if need be.

        Raises:
            EngineError: the sequence has failed.
        """
        while not self._contents:
            self._news.clear()
            await self._news.wait()
        content = self._contents.popleft()
        if isinstance(content, EngineDelta):
            return content
        raise content

    def take_rest(self) -> list[EngineDelta]:
        """Return the deltas that can be taken without waiting, none if there are none."""
        deltas = []
        while self._contents and isinstance(content := self._contents[0], EngineDelta):
            deltas.append(content)
            self._contents.popleft()
        return deltas
