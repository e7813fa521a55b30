"""Where a start stands: the phase, and how far it is, for ``ready``'s body, the log and the terminal.

Phases follow each other: ``starting``, ``downloading`` (with what goes before and after it), ``loading``, ``ready``,
and later ``restarting`` or ``stopping``. Progress within one is written twice a second and told every ten seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from launcher.download.progress import DownloadState
from launcher.download.progress import Phase as DownloadPhase

WRITE_EVERY_S: Final = 0.5
TELL_EVERY_S: Final = 10.0


class Teller(Protocol):
    """Whoever tells people, such as ``launcher.report.Reporter``."""

    def phase(self, phase: str, facts: Mapping[str, Any]) -> None:
        """Tell a phase, or how far it is."""


class Writer(Protocol):
    """Whoever keeps the state for the API, such as ``launcher.workspace.Workspace``."""

    def write_phase(self, phase: str, **facts: Any) -> None:
        """Write it where the API reads it."""


@dataclass(slots=True)
class Phases:
    """The one place that knows where the start stands. May be called from any thread, one at a time.

    Attributes:
        writer: takes every state.
        teller: takes a line now and then; None tells nobody.
    """

    writer: Writer
    teller: Teller | None = None
    clock: Callable[[], float] = time.monotonic
    current: dict[str, Any] = field(default_factory=lambda: {"phase": "starting"})
    restarts: dict[str, int] = field(default_factory=dict)
    _entered: float = 0.0
    _written: float = float("-inf")
    _told: float = 0.0

    def enter(self, phase: str, **facts: Any) -> None:
        """Go over to a phase."""
        self._entered = self._written = self._told = self.clock()
        self._write(phase, facts)
        self._tell(phase, facts)

    def progress(self, phase: str, bytes_done: int, bytes_total: int | None, **facts: Any) -> None:
        """Tell how far a phase is; ``eta_seconds`` is worked out from the time it took so far unless given."""
        known = {"bytes_done": bytes_done, "bytes_total": bytes_total} | facts
        if phase != self.current["phase"]:
            self.enter(phase, **known)
            return
        now = self.clock()
        is_done = bytes_total is not None and bytes_done >= bytes_total
        if now - self._written < WRITE_EVERY_S and not is_done:
            return
        self._written = now
        known.setdefault("eta_seconds", _eta(bytes_done, bytes_total, now - self._entered))
        self._write(phase, known)
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            self._tell(phase, known)

    def update(self, state: DownloadState) -> None:
        """Take what a download says of itself (``launcher.download.progress.Progress``)."""
        facts: dict[str, Any] = {"eta_seconds": None if state.eta_s is None else round(state.eta_s)}
        if state.rate is not None:
            facts["bytes_per_second"] = round(state.rate)
        if state.note:
            facts["note"] = state.note
        # The end of the download is not the end of the start.
        phase = DownloadPhase.CHECKING if state.phase is DownloadPhase.DONE else state.phase
        self.progress(str(phase), state.bytes_done, state.bytes_total, **facts)

    def note_restart(self, process: str) -> None:
        """Count that ``api`` or ``engine`` is started again."""
        self.restarts[process] = self.restarts.get(process, 0) + 1
        self._write(self.current["phase"], {name: fact for name, fact in self.current.items() if name != "phase"})

    def _tell(self, phase: str, facts: Mapping[str, Any]) -> None:
        if self.teller is not None:
            self.teller.phase(phase, facts)

    def _write(self, phase: str, facts: Mapping[str, Any]) -> None:
        self.current = {"phase": phase, **facts}
        restarts = {"restarts": dict(self.restarts)} if self.restarts else {}
        self.writer.write_phase(phase, **(dict(facts) | restarts))


def _eta(done: int, total: int | None, elapsed_s: float) -> int | None:
    if total is None or done <= 0 or elapsed_s <= 0:
        return None
    return round(elapsed_s * max(total - done, 0) / done)
