"""Memory for a large request body: filled as it arrives, searched without reading it again, given back in a thread.

Memory of several megabytes that is asked for, or given back, in one go holds up the event loop for milliseconds: the
kernel clears every page. Here pages come one by one with what is written to them, and go in another thread.
"""

from __future__ import annotations

import bisect
import itertools
import mmap
from typing import Final

from api.media.background_close import close_in_background, prepare

LEAST_BYTES: Final = 1 << 20
"""Smaller bodies are held up less by plain memory than by this."""
_FIRST_WINDOW: Final = 1 << 12
_LAST_WINDOW: Final = 1 << 18
"""Searched at a time: little at first, since most of what is looked for is near."""
_TELLING: Final = (b'"', b"\\")
"""The characters that end a string in JSON, or do not: chunks of a picture have none."""


class LargeBody:
    """A body of at most a known size. As long as parts of it are in use, its memory stays."""

    def __init__(self, size: int) -> None:
        prepare()
        # Shared memory would be a file's, which costs more.
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._size = size
        self._length = 0
        self._telling: list[tuple[int, int]] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: slice) -> memoryview:
        """Return a part, which is not copied."""
        return self.view[place]

    def __del__(self) -> None:
        close_in_background(self._memory)

    @property
    def view(self) -> memoryview:
        """The whole of it."""
        return memoryview(self._memory)[: self._length]

    def append(self, chunk: bytes) -> None:
        """Add what has arrived; what is more than was announced is dropped."""
        start = self._length
        chunk = chunk[: self._size - start]
        self._length += len(chunk)
        self._memory[start : self._length] = chunk
        # Now it is in the processor's cache; later it would have to be read once more.
        if any(character in chunk for character in _TELLING):
            self._telling.append((start, self._length))
            self._ends.append(self._length)

    def find(self, part: bytes, start: int, end: int | None = None) -> int:
        """Return where a part begins between ``start`` and ``end``, -1 when it is absent."""
        end = self._length if end is None else end
        if part not in _TELLING:
            return self._find(part, start, end)
        for first, last in itertools.islice(self._telling, bisect.bisect_right(self._ends, start), None):
            if first >= end:
                break
            found = self._find(part, max(first, start), min(last, end))
            if found >= 0:
                return found
        return -1

    def _find(self, part: bytes, start: int, end: int) -> int:
        window, place = _FIRST_WINDOW, start
        while place < end:
            # Windows overlap by what a part that begins in one may need of the next.
            found = self._memory[place : min(place + window + len(part) - 1, end)].find(part)
            if found >= 0:
                return place + found
            place += window
            window = min(window * 4, _LAST_WINDOW)
        return -1
