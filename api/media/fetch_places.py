"""The places for fetches in this process: so many at a time, so many that wait, and a share of both for one site.

Without the share a few requests that name one slow server would take every place for as long as a fetch may last, and
pictures from everywhere else would have to wait for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from api.errors import OverloadedError
from api.media.fetch_target import FetchTarget

SHARE: Final = 2
"""One site has one of so many parts of all places."""
_SITE_LABELS: Final = 2
_SITE_PREFIX: Final = {4: 32, 6: 64}
"""Bits of an address that one owner surely has."""
_BUSY: Final = "The server is busy fetching images. Try again shortly."


class _Queue:
    """Places and those that wait for one."""

    def __init__(self, places: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(places)
        self._may_wait = waiting
        self._waiting = 0
        self.users = 0

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return self._places.locked() and self._waiting >= self._may_wait

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for the time of the block, entered once there is one."""
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """How many fetches run and wait in this process."""

    parallel: int
    waiting: int
    timeout_s: float
    """How long one may wait."""


class FetchPlaces:
    """All places of a process. Belongs to one event loop."""

    def __init__(self, limits: PlaceLimits) -> None:
        self._limits = limits
        self._all = _Queue(limits.parallel, limits.waiting)
        self._sites: dict[str, _Queue] = {}

    @asynccontextmanager
    async def take(self, target: FetchTarget, *, is_shared: bool) -> AsyncIterator[None]:
        """Hold a place for the time of the block. With ``is_shared`` the target's site gets no more than its share.

        Raises:
            OverloadedError: too many wait already, or this one has waited too long.
        """
        async with AsyncExitStack() as held:
            queues = [self._all]
            if is_shared:
                # Its share first: who waits for it must not hold a place that others could use.
                queues.insert(0, held.enter_context(self._site(target)))
            if any(queue.is_full for queue in queues):
                raise OverloadedError(_BUSY)
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    for queue in queues:
                        await held.enter_async_context(queue.place())
            except TimeoutError as error:
                raise OverloadedError(_BUSY) from error
            yield

    @contextmanager
    def _site(self, target: FetchTarget) -> Iterator[_Queue]:
        """Give the queue of a target's site, which is forgotten when nobody uses it."""
        name = site(target)
        share = (max(1, count // SHARE) for count in (self._limits.parallel, self._limits.waiting))
        queue = self._sites.setdefault(name, _Queue(*share))
        queue.users += 1
        try:
            yield queue
        finally:
            queue.users -= 1
            if not queue.users:
                del self._sites[name]


def site(target: FetchTarget) -> str:
    """Return what all hosts of one owner have in common, as far as a name or an address shows it."""
    if target.address is None:
        return ".".join(target.host.split(".")[-_SITE_LABELS:])
    bits = _SITE_PREFIX[target.address.version]
    return str(ipaddress.ip_network((target.address, bits), strict=False))
