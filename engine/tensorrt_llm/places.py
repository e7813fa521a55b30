"""Places in the library's batch: who has one, and who waits for one in which order.

The library would queue without bounds and by arrival; so it is given no more requests than its batch holds, and the
order of those that wait is ours.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools


class Places:
    """A counted number of places. Higher priority first, then in order of arrival."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self.taken = 0

    async def take(self, priority: int) -> None:
        """Wait for a place and take it."""
        if self._free and not self._waiting:
            self._grant()
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.free()
            raise

    def free(self) -> None:
        """Give a place back; whoever is next has it at once."""
        self._free += 1
        self.taken -= 1
        while self._waiting and self._free:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                self._grant()
                turn.set_result(None)

    def _grant(self) -> None:
        self._free -= 1
        self.taken += 1
