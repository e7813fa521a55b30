"""When a crashed process is started again, and when that is enough."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 600.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0


class RestartBudget:
    """Allows so many crashes within ten minutes, with pauses that double."""

    def __init__(self, max_restarts: int) -> None:
        self._max_restarts = max_restarts
        self._crashes: deque[float] = deque()

    def pause_after_crash(self, now: float) -> float | None:
        """Note a crash at ``now`` (seconds of any steady clock).

        Returns:
            Seconds to wait before the next start, None when there must be none.
        """
        self._crashes.append(now)
        while self._crashes and now - self._crashes[0] > WINDOW_S:
            self._crashes.popleft()
        crashes = len(self._crashes)
        if crashes > self._max_restarts:
            return None
        return min(FIRST_PAUSE_S * 2.0 ** (crashes - 1), LONGEST_PAUSE_S)
