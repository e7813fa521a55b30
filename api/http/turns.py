"""Lets those who have much to read take turns, so that the event loop's rounds stay short however many they are.

In one round the loop reads from every connection that has something to say. With 32 large uploads at once that would be
8 MB in one go, and 10 ms in which nobody else is served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

PER_ROUND: Final = 1
"""Connections that may read on in one round of the loop; each reads up to 256 kB, which takes about 0.3 ms."""


class Turns:
    """Who waits, in order. Nobody holds a place, so that a slow client keeps nobody waiting."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        """In which the next round is on its way."""

    async def take(self) -> None:
        """Wait for a turn; it ends by itself."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self._round)
        await turn

    def _round(self) -> None:
        given = 0
        while self._waiting and given < PER_ROUND:
            turn = self._waiting.popleft()
            # One whose client has gone needs none.
            if not turn.done():
                turn.set_result(None)
                given += 1
        if self._waiting and self._loop is not None:
            self._loop.call_soon(self._round)
        else:
            self._loop = None
