"""What is known about finished files: size, SHA-256, and a CRC-32 per piece, so that damage can be found and mended.

A file whose size and time of change are those of its record was checked and has not been written since; it is trusted
without being read again. Any other is read and checked once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from launcher.cache.store import write_atomically

Algorithm = Literal["sha256", "git-sha1"]
_VERSION: Final = 1
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file must be: its SHA-256, or the SHA-1 that git gives it (small files on the hub)."""

    algorithm: Algorithm
    value: str

    @property
    def identity(self) -> str:
        """Both in one word."""
        return f"{self.algorithm}:{self.value.lower()}"


class Digest:
    """Computes SHA-256 and, where asked for, git's SHA-1 of the same bytes."""

    def __init__(self, size: int, checksum: Checksum | None) -> None:
        self._sha256 = hashlib.sha256()
        self._expected = checksum
        self._git: hashlib._Hash | None = None
        if checksum is not None and checksum.algorithm == "git-sha1":
            self._git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    def matches(self) -> bool:
        """Tell whether the bytes are what they must be; without a checksum, any are."""
        if self._expected is None:
            return True
        found = self._git.hexdigest() if self._git is not None else self._sha256.hexdigest()
        return found == self._expected.value.lower()

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes so far."""
        return self._sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """One finished file.

    Attributes:
        mtime_ns: time of change when it was last checked.
        crcs: CRC-32 of each piece of ``piece`` bytes.
        checked: what it was checked against; None if the source gave no checksum, so that only its length was.
    """

    size: int
    mtime_ns: int
    sha256: str
    piece: int
    crcs: tuple[int, ...]
    checked: Checksum | None

    def fits(self, path: Path) -> bool:
        """Tell whether the file has not been written since it was checked."""
        try:
            facts = path.stat()
        except OSError:
            return False
        return facts.st_size == self.size and facts.st_mtime_ns == self.mtime_ns

    def proves(self, checksum: Checksum | None) -> bool:
        """Tell whether the file that was checked is the one that ``checksum`` asks for."""
        if checksum is None or checksum == self.checked:
            return True
        return checksum.algorithm == "sha256" and checksum.value.lower() == self.sha256

    def good_pieces(self, path: Path) -> dict[int, int]:
        """Read the file and return the pieces that are still good, with their CRC-32.

        Raises:
            OSError: as the system has it.
        """
        good: dict[int, int] = {}
        with path.open("rb", buffering=0) as file:
            for index, crc in enumerate(self.crcs):
                data = os.pread(file.fileno(), self.piece, index * self.piece)
                if zlib.crc32(data) == crc:
                    good[index] = crc
        return good


def read_record(path: Path) -> Record | None:
    """Return a record; None if there is none or it cannot be read."""
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        crcs = str(data["crc32"])
        checked = data["checked"]
        if data["version"] != _VERSION:
            return None
        return Record(
            size=int(data["size"]),
            mtime_ns=int(data["mtime_ns"]),
            sha256=str(data["sha256"]),
            piece=int(data["piece"]),
            crcs=tuple(int(crcs[at : at + _DIGITS], 16) for at in range(0, len(crcs), _DIGITS)),
            checked=Checksum(checked["algorithm"], checked["value"]) if checked else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Store a record.

    Raises:
        OSError: as the system has it.
    """
    checked = record.checked
    data = {
        "version": _VERSION, "size": record.size, "mtime_ns": record.mtime_ns, "sha256": record.sha256,
        "checked": {"algorithm": checked.algorithm, "value": checked.value} if checked else None,
        "piece": record.piece, "crc32": "".join(f"{crc:08x}" for crc in record.crcs),
    }  # fmt: skip
    write_atomically(path, json.dumps(data).encode())


def check_file(
    path: Path, checksum: Checksum | None, piece: int, advance: Callable[[int], None]
) -> tuple[bool, Record]:
    """Read a finished file and return whether it is what it must be, and its record.

    ``advance`` is told the bytes of each piece that was read.

    Raises:
        OSError: as the system has it.
    """
    with path.open("rb", buffering=0) as file:
        facts = os.fstat(file.fileno())
        digest = Digest(facts.st_size, checksum)
        crcs: list[int] = []
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for start in range(0, facts.st_size, piece):
            data = os.pread(file.fileno(), piece, start)
            digest.update(data)
            crcs.append(zlib.crc32(data))
            advance(len(data))
    is_right = digest.matches()
    return is_right, Record(
        facts.st_size, facts.st_mtime_ns, digest.sha256, piece, tuple(crcs), checksum if is_right else None
    )
