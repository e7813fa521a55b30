"""How the launcher ends: its exit codes, and the errors that carry a code and a remedy.

The numbers follow BSD's sysexits.h where it has one for the case. Whatever stops a start is raised as a ``LaunchError``
or one of its subclasses; the command line turns it into one line and the status of the process.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Status of the ``gemma4-nim`` process; ``docs/operations.md`` says what to do about each."""

    OK = 0
    """Stopped on request."""
    INTERNAL = 1
    """A fault of the launcher itself."""
    BAD_SETTINGS = 64
    """A setting or an argument cannot be used."""
    CANNOT_START = 65
    """The model cannot be served: a file is missing or damaged, or not a Gemma 4."""
    NOT_FOUND = 66
    """The source has no such model, revision or file, or offline the cache has not."""
    PORT_UNAVAILABLE = 68
    """The port is taken or may not be used."""
    NO_USABLE_HARDWARE = 69
    """Nothing that could serve the model runs and fits on this hardware."""
    HARDWARE_FAULT = 70
    """A GPU or its driver is broken: present, but not usable."""
    ENGINE_FAILED = 71
    """The engine crashed more often than allowed."""
    API_FAILED = 72
    """The API process did not start, or crashed more often than allowed."""
    CACHE_NOT_WRITABLE = 73
    """The cache folder cannot be used by this user."""
    DISK_FULL = 74
    """The disk has no room for what has to be stored, or fails."""
    DOWNLOAD_FAILED = 75
    """The network or the source failed; trying again may help."""
    START_TIMEOUT = 76
    """The model was not ready in time."""
    ACCESS_DENIED = 77
    """The source wants a key, or refuses the one that it got."""
    LICENCE_NOT_ACCEPTED = 78
    """The source gives the files only to those who accepted their licence there."""
    OUT_OF_MEMORY = 137
    """The engine was killed because memory ran out, or stopped just before it did."""

    @property
    def is_worth_a_retry(self) -> bool:
        """Tell whether the same start may succeed later with nothing changed."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {ExitCode.ENGINE_FAILED, ExitCode.API_FAILED, ExitCode.DOWNLOAD_FAILED, ExitCode.START_TIMEOUT, ExitCode.INTERNAL}
)


class LaunchError(Exception):
    """Why the launcher stops: one line for the user, what helps, and the exit code."""

    def __init__(self, code: ExitCode, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


class CodedError(LaunchError):
    """Base of the errors that have one exit code each: ``raise NetworkError(message, remedy)``."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(self.exit_code, message, remedy)


class NetworkError(CodedError):
    """A source could not be reached or broke off, more often than was tried again."""

    exit_code = ExitCode.DOWNLOAD_FAILED


class AccessError(CodedError):
    """A source wants a key, or refuses the one that it got."""

    exit_code = ExitCode.ACCESS_DENIED


class LicenceGateError(CodedError):
    """A source gives the files only to accounts that accepted their licence."""

    exit_code = ExitCode.LICENCE_NOT_ACCEPTED


class NotFoundError(CodedError):
    """The source, or offline the cache, has no such model, revision or file."""

    exit_code = ExitCode.NOT_FOUND


class ChecksumError(CodedError):
    """Bytes are not what their checksum says, also after another download."""

    exit_code = ExitCode.CANNOT_START


class CacheError(CodedError):
    """The cache folder cannot be used by this user."""

    exit_code = ExitCode.CACHE_NOT_WRITABLE


class DiskError(CodedError):
    """The disk is too full for what has to be stored, or fails."""

    exit_code = ExitCode.DISK_FULL


class HardwareFaultError(CodedError):
    """A GPU or its driver is present but broken."""

    exit_code = ExitCode.HARDWARE_FAULT
