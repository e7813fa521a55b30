"""Reads pictures from the one folder that the operator opened, and from nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from api.media.errors import SourceError

_UNREADABLE: Final = "there is no such image file in the folder that this server may read"
"""One text for files that are missing, elsewhere, or no files: a caller must not learn what exists on this machine."""
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read_local_file(root: Path, path: str, *, max_bytes: int) -> bytes:
    """Return the bytes of a regular file inside ``root``; a relative path starts there.

    Links are followed as long as they end inside. What was really opened is checked, not only what the path meant a
    moment before, so exchanging a folder for a link in between gains nothing.

    Raises:
        SourceError: for everything else, and for files larger than ``max_bytes``.
    """
    try:
        folder = root.resolve(strict=True)
        wanted = (folder / path).resolve(strict=True)
        if not wanted.is_relative_to(folder) or not wanted.is_file():
            raise SourceError(_UNREADABLE)
        descriptor = os.open(wanted, _FLAGS)
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(_UNREADABLE) from error
    with open(descriptor, "rb", buffering=0):  # noqa: PTH123 - a descriptor has no path
        opened = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - must not be resolved further
        facts = os.fstat(descriptor)
        if not opened.is_relative_to(folder) or not stat.S_ISREG(facts.st_mode):
            raise SourceError(_UNREADABLE)
        if facts.st_size > max_bytes:
            raise SourceError(f"it is larger than {max_bytes} bytes")
        try:
            return _read(descriptor, max_bytes)
        except OSError as error:
            raise SourceError(_UNREADABLE) from error


def _read(descriptor: int, max_bytes: int) -> bytes:
    """Read to the end; a file that grows meanwhile is cut off at the limit with an error."""
    pieces: list[bytes] = []
    left = max_bytes + 1
    while left and (piece := os.read(descriptor, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise SourceError(f"it is larger than {max_bytes} bytes")
    return b"".join(pieces)
