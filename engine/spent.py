"""Counts how often something was done and how long it took, for a core's statistics."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MICROSECONDS = 1_000_000


class Spent:
    """Belongs to one thread, or one event loop; any other may read."""

    def __init__(self) -> None:
        self.count = 0
        self._seconds = 0.0

    @property
    def microseconds(self) -> int:
        """Time in all, as ``engine.core.EngineStats`` has it."""
        return round(self._seconds * _MICROSECONDS)

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self._seconds += seconds

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count what the block does, if it succeeds."""
        begun = time.perf_counter()
        yield
        self.add(time.perf_counter() - begun)
