"""A picture file as it came: bytes, or base64 text that nobody has decoded yet. What decoders are given."""

from __future__ import annotations

from dataclasses import dataclass

from api.media.large_body import LargeBody


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One encoded picture. Nothing is cut out or copied: it lies from ``start`` to ``stop`` in ``data``."""

    data: bytes | bytearray | str | LargeBody
    is_base64: bool = False
    start: int = 0
    end: int | None = None
    """Where it ends; None for the end of ``data``."""

    @property
    def stop(self) -> int:
        """Where it ends."""
        return len(self.data) if self.end is None else self.end

    def part(self, start: int, size: int) -> bytes | memoryview | str:
        """Return at most ``size`` bytes or characters from ``start`` on, where it lies unless it is text."""
        place = slice(self.start + start, min(self.start + start + size, self.stop))
        return self.data[place] if isinstance(self.data, (str, LargeBody)) else memoryview(self.data)[place]

    @property
    def size(self) -> int:
        """How many bytes or characters it has."""
        return self.stop - self.start
