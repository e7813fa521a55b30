"""Stops the engine before the machine runs out of memory, where the kernel would not manage to.

Where GPU and CPU share the memory (DGX Spark), the driver's pages cannot be reclaimed and the kernel has no process to
kill for them: the machine hangs. ``decide`` is pure; ``watch`` feeds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 0.5
HORIZON_S: Final = 5.0
"""So far ahead a steady fall is followed: about what a large allocation of the engine takes."""
SHARE: Final = 32
"""Unless told otherwise, this part of the memory is the least that must be left: 3.7 GiB of a DGX Spark's 119 GiB."""
GIB: Final = 2**30


class Decision(StrEnum):
    """What to do about the memory."""

    FINE = "fine"
    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Sample:
    """Bytes that were available at a moment (seconds of any steady clock)."""

    at: float
    available: int


def guard_floor(guard_gib: float | None, total: int | None, *, unified: bool) -> int | None:
    """Return the bytes that must stay available; None where nothing has to be watched.

    Args:
        guard_gib: ``NIM_MEMORY_GUARD_GIB``.
        total: bytes of memory that the machine has.
        unified: whether a GPU that is used shares it.
    """
    if guard_gib is not None:
        return int(guard_gib * GIB) or None
    return total // SHARE if unified and total else None


def decide(samples: Sequence[Sample], floor: int) -> Decision:
    """Judge the newest samples, oldest first.

    One sample below the floor may be a moment's peak, two are not; below half of the floor there is no time to look
    again. A fall that leads below half of it within five seconds is not waited for once twice the floor is reached.
    """
    if not samples:
        return Decision.FINE
    newest = samples[-1]
    if newest.available < floor // 2 or (all(sample.available < floor for sample in samples[-2:]) and len(samples) > 1):
        return Decision.STOP
    if newest.available < 2 * floor:
        return Decision.STOP if _expected(samples) < floor // 2 else Decision.WARN
    return Decision.FINE


def _expected(samples: Sequence[Sample]) -> float:
    """Return the bytes that will be available at the horizon if the memory goes on falling as it does."""
    first, newest = samples[0], samples[-1]
    if newest.at <= first.at:
        return newest.available
    return newest.available + (newest.available - first.available) / (newest.at - first.at) * HORIZON_S


@dataclass(frozen=True, slots=True)
class MemoryGuard:
    """What to watch.

    Attributes:
        floor: bytes that must stay available.
        available: reads the bytes that are; None when it cannot be told.
    """

    floor: int
    available: Callable[[], int | None]

    async def watch(self, clock: Callable[[], float] = time.monotonic) -> Sample:
        """Return when the engine must be stopped, with the sample that decided it."""
        samples: deque[Sample] = deque(maxlen=int(HORIZON_S / INTERVAL_S))
        warned = False
        while True:
            # First of all: a caller that comes back at once must not keep the event loop for itself.
            await asyncio.sleep(INTERVAL_S)
            available = self.available()
            if available is not None:
                samples.append(Sample(clock(), available))
                decision = decide(tuple(samples), self.floor)
                if decision is Decision.STOP:
                    return samples[-1]
                if decision is Decision.WARN and not warned:
                    logger.warning("memory runs low: %d MiB are left", available // 2**20)
                warned = decision is Decision.WARN
