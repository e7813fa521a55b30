"""What a check of ``doctor`` finds: fine, worth knowing, doubtful, or in the way of a start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from launcher.errors import ExitCode, LaunchError


class Status(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    """As it should be."""
    NOTE = "note"
    """Worth knowing; nothing needs to be done."""
    WARNING = "warning"
    """A start works, but something about it may disappoint."""
    FAILURE = "failure"
    """A start would fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, in one or two words.
        what: what was found, in a sentence.
        remedy: what to do; empty where nothing has to be done.
        code: with what a start would end.
    """

    check: str
    status: Status
    what: str
    remedy: str = ""
    code: ExitCode = ExitCode.OK

    def record(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {"check": self.check, "status": str(self.status), "what": self.what, "remedy": self.remedy}


Findings = Iterator[Finding]


def fine(check: str, what: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(check, Status.OK, what)


def note(check: str, what: str, remedy: str = "") -> Finding:
    """Return something that is worth knowing."""
    return Finding(check, Status.NOTE, what, remedy)


def doubt(check: str, what: str, remedy: str) -> Finding:
    """Return something that may disappoint."""
    return Finding(check, Status.WARNING, what, remedy)


def failure(check: str, error: LaunchError) -> Finding:
    """Return what a start would end with."""
    return Finding(check, Status.FAILURE, error.message, error.remedy, error.code)
