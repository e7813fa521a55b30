"""Faults of a picture: of its source, and of what it holds. Standard library only: decoder processes import it."""

from __future__ import annotations


class SourceError(Exception):
    """A picture that cannot be read from where it is.

    ``message`` is safe to show: it starts in lower case, says what to do, and ends without a full stop.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DecodeError(Exception):
    """Bytes that are no usable picture. ``message`` is safe to show: lower case, no full stop."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
