"""How often, and with which pauses, something is tried again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from launcher.download.access import Patience
from launcher.download.network import TransientError
from launcher.errors import NetworkError

T = TypeVar("T")
_REMEDY = "check the network, HTTPS_PROXY and NO_PROXY; what was fetched is kept, the next start goes on from there"


class Cancelled(Exception):  # noqa: N818 - not an error: somebody else's error ended the download
    """The download was stopped while this thread waited."""


class Pace:
    """What all threads of a download share: the end, a server's wish that everybody waits, and the latest trouble.

    A pause that one thread is asked for (status 429) holds back all of them: eight threads that each come back after
    the pause are what the server complained about.
    """

    def __init__(self, patience: Patience, tell: Callable[[str], None] | None = None) -> None:
        """Prepare; ``tell`` is called with each new trouble, by the thread that has it."""
        self.patience = patience
        self._tell = tell
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._troubles: dict[int, str] = {}

    @property
    def note(self) -> str:
        """What goes wrong at the moment, for the progress; empty when all is well."""
        with self._lock:
            return next(iter(self._troubles.values()), "")

    def attempts(self) -> Attempts:
        """Return a new count of failures in a row, for one thread or one question."""
        return Attempts(self)

    def wait_for_turn(self) -> None:
        """Wait while a server's pause lasts.

        Raises:
            Cancelled: the download was stopped meanwhile.
        """
        self.wait(self._not_before - time.monotonic())

    def wait(self, seconds: float) -> None:
        """Wait, unless the download is stopped.

        Raises:
            Cancelled: it was.
        """
        if self.stop.is_set() or (seconds > 0 and self.stop.wait(seconds)):
            raise Cancelled

    def hold_all(self, seconds: float) -> None:
        """Let nobody send a request before ``seconds`` have passed."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def trouble(self, who: int, text: str | None) -> None:
        """Remember what goes wrong for ``who``; None when it goes well again."""
        with self._lock:
            if text is None:
                self._troubles.pop(who, None)
            else:
                self._troubles[who] = text
        if text is not None and self._tell is not None:
            self._tell(text)


class Attempts:
    """Counts failures in a row of one thread or one question."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0

    def succeeded(self) -> None:
        """Forget earlier failures: there was progress."""
        if self._failures:
            self._failures = 0
            self._pace.trouble(id(self), None)

    def failed(self, error: TransientError) -> None:
        """Count a failure and wait, or give up.

        Raises:
            NetworkError: too many failures in a row.
            Cancelled: the download was stopped meanwhile.
        """
        patience = self._pace.patience
        self._failures += 1
        if self._failures >= patience.attempts:
            raise NetworkError(f"{error.reason} ({self._failures} attempts)", _REMEDY) from error
        self._pace.trouble(id(self), f"{error.reason}; attempt {self._failures + 1} of {patience.attempts}")
        pause = min(patience.longest_pause_s, patience.backoff_s * 2 ** (self._failures - 1))
        # Half fixed, half by chance, so that threads and machines that failed together do not return together.
        pause *= 0.5 + random.random() / 2  # noqa: S311 - no secret
        if error.pause_s is not None:
            pause = max(pause, min(error.pause_s, 10 * patience.longest_pause_s))
            self._pace.hold_all(pause)
        self._pace.wait(pause)

    def run(self, action: Callable[[], T]) -> T:
        """Call ``action`` until it raises no ``TransientError``.

        Raises:
            NetworkError: too many failures in a row.
            Cancelled: the download was stopped meanwhile.
        """
        while True:
            self._pace.wait_for_turn()
            try:
                result = action()
            except TransientError as error:
                self.failed(error)
            else:
                self.succeeded()
                return result
