"""How the launcher ends: its exit codes, and the one error that carries a code and a remedy."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Status of the ``gemma4-nim`` process; ``docs/operations.md`` says what to do about each."""

    OK = 0
    """Stopped on request."""
    INTERNAL = 1
    """A fault of the launcher itself."""
    BAD_SETTINGS = 2
    """A setting or an argument cannot be used."""
    CANNOT_START = 3
    """The model cannot be served here: a file is missing or damaged, not a Gemma 4, or memory is too small."""
    PORT_UNAVAILABLE = 4
    """The port is taken or may not be used."""
    ENGINE_FAILED = 5
    """The engine crashed more often than allowed."""
    API_FAILED = 6
    """The API process did not start, or crashed more often than allowed."""
    START_TIMEOUT = 7
    """The model was not ready in time."""
    OUT_OF_MEMORY = 137
    """The engine was killed from outside, most likely because memory ran out."""


class LaunchError(Exception):
    """Why the launcher stops: one line for the user, what helps, and the exit code."""

    def __init__(self, code: ExitCode, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
