"""Checksums of the files of a folder: made with several threads, with progress, and put together into one digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

CHUNK_BYTES: Final = 4 * 1024 * 1024
THREADS: Final = 4

Advance = Callable[[int], None]
"""Takes the bytes that were read since the last call; called from several threads."""


class FileRecord(BaseModel):
    """What a file must be: its size in bytes and its SHA-256 in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def record_files(folder: Path, names: Iterable[str], advance: Advance | None = None) -> dict[str, FileRecord]:
    """Read files, named relative to ``folder``, and return their records.

    Raises:
        OSError: one of them cannot be read.
    """
    wanted = sorted(names)
    with ThreadPoolExecutor(THREADS, "checksums") as threads:
        records = threads.map(lambda name: record_file(folder / name, advance), wanted)
        return dict(zip(wanted, records, strict=True))


def record_file(path: Path, advance: Advance | None = None) -> FileRecord:
    """Read one file and return its record.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            if advance is not None:
                advance(len(chunk))
    return FileRecord(size=size, sha256=digest.hexdigest())


def digest_of(records: Mapping[str, FileRecord]) -> str:
    """Return one SHA-256 for a set of files: their names, sizes and checksums in the order of their names."""
    lines = (f"{record.sha256} {record.size} {name}\n" for name, record in sorted(records.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files_below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, relative to it, with ``/`` between parts; links are followed."""
    found: list[str] = []
    for place, _, names in os.walk(folder, followlinks=True):
        found.extend(str((Path(place) / name).relative_to(folder)) for name in names)
    return sorted(found)
