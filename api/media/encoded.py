"""A picture file as it came: bytes, or base64 text that nobody has decoded yet. What decoders are given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One encoded picture. Nothing is cut out or copied: it lies from ``start`` to ``stop`` in ``data``."""

    data: bytes | bytearray | str
    is_base64: bool = False
    start: int = 0
    end: int | None = None
    """Where it ends; None for the end of ``data``."""

    @property
    def stop(self) -> int:
        """Where it ends."""
        return len(self.data) if self.end is None else self.end
