"""Stop texts: found across pieces, never leaked, with no more held back than could still become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Looks for the first of some texts in a stream. With none it passes everything through."""

    __slots__ = ("_held", "_longest", "_texts", "matched")

    def __init__(self, texts: Sequence[str]) -> None:
        """Look for ``texts``; empty ones are ignored."""
        self._texts = tuple(text for text in texts if text)
        self._longest = max(map(len, self._texts), default=0)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Return what is safe to show; after a match, what stood before it, and nothing from then on."""
        if not self._texts:
            return text
        if self.matched is not None:
            return ""
        text = self._held + text
        found = [(position, stop) for stop in self._texts if (position := text.find(stop)) >= 0]
        if found:
            position, self.matched = min(found, key=lambda hit: (hit[0], -len(hit[1])))
            self._held = ""
            return text[:position]
        keep = self._overlap(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back: the stream has ended without a match."""
        text, self._held = self._held, ""
        return text

    def _overlap(self, text: str) -> int:
        """Return the length of the longest end of the text that begins a stop text."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[len(text) - length :]
            if any(stop.startswith(tail) for stop in self._texts):
                return length
        return 0
