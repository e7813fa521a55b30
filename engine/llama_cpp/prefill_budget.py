"""How much prompt work one step takes, from the measured speed. Pure: the batcher measures, this decides."""

from __future__ import annotations


class PrefillBudget:
    """How many prompt tokens one step may take, so that running sequences keep flowing and an abort is noticed soon.

    It follows the measured speed: a step shall take about ``busy_s`` when sequences are running, ``idle_s`` when not.
    """

    def __init__(self, batch_tokens: int, busy_s: float = 0.05, idle_s: float = 0.2) -> None:
        self._largest = batch_tokens
        self._smallest = min(32, batch_tokens)
        self._busy_s = busy_s
        self._idle_s = idle_s
        self._tokens_per_s = batch_tokens / idle_s

    def tokens(self, *, running: bool) -> int:
        """Return the budget of the next step."""
        wanted = self._tokens_per_s * (self._busy_s if running else self._idle_s)
        return max(self._smallest, min(self._largest, int(wanted)))

    def record(self, tokens: int, seconds: float) -> None:
        """Learn from a step that computed so many prompt tokens."""
        if tokens >= self._smallest and seconds > 0:
            self._tokens_per_s = 0.7 * self._tokens_per_s + 0.3 * tokens / seconds
