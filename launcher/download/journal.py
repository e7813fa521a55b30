"""A file that is being fetched: its bytes, and a journal of the pieces that are on disk, which survives ``kill -9``.

The journal is text, one line per piece with its CRC-32, written after the piece's bytes; a line cut short is ignored.
The CRC says which piece went bad, never that the file is right: that is the checksum's part, over the whole file.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from launcher.cache.store import shared_mode

_VERSION: Final = 1
_MOST_BUFFERS: Final = 512
_MODE: Final = 0o664


class PartialFile:
    """One unfinished file of known size, written by several threads."""

    def __init__(self, folder: Path, name: str, size: int, piece: int, identity: str) -> None:
        """Open it, or go on where an earlier run ended if that run fetched the same thing.

        Args:
            folder: where partial files lie, on the same volume as the finished ones.
            name: of the finished file.
            size: bytes of the finished file.
            piece: bytes of a piece; a resumed file keeps the size that it was begun with.
            identity: what is fetched, e.g. its checksum; an unfinished file of another identity is dropped.

        Raises:
            OSError: as the system has it.
        """
        self.path = folder / f"{name}.partial"
        self._journal_path = folder / f"{name}.journal"
        self.size = size
        self._identity = identity
        self._lock = threading.Lock()
        self._is_open = True
        header, crcs = _read_journal(self._journal_path)
        begun = header.get("piece")
        same = header.get("identity") == identity and header.get("size") == size and self.path.exists()
        same = same and isinstance(begun, int) and begun > 0
        self.piece = begun if same and isinstance(begun, int) else piece
        self._crcs: dict[int, int] = crcs if same else {}
        self._crcs = {index: crc for index, crc in self._crcs.items() if 0 <= index < self.pieces}
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, _MODE)
        try:
            os.ftruncate(self._fd, size)
            with contextlib.suppress(OSError):  # another user's file that the group may write
                os.fchmod(self._fd, shared_mode(folder) & 0o666)
            self._journal = self._open_journal(fresh=not same)
        except OSError:
            os.close(self._fd)
            raise

    @property
    def pieces(self) -> int:
        """Number of pieces; an empty file has none."""
        return -(-self.size // self.piece)

    def length(self, index: int) -> int:
        """Bytes of one piece; the last may be short."""
        return min(self.piece, self.size - index * self.piece)

    def has(self, index: int) -> bool:
        """Tell whether a piece is on disk."""
        return index in self._crcs

    @property
    def is_complete(self) -> bool:
        """Tell whether every piece is on disk."""
        return len(self._crcs) == self.pieces

    def missing(self) -> list[int]:
        """Return the pieces that are not on disk, in order."""
        with self._lock:
            return [index for index in range(self.pieces) if index not in self._crcs]

    def bytes_done(self) -> int:
        """Bytes of the pieces that are on disk."""
        with self._lock:
            return sum(self.length(index) for index in self._crcs)

    def crcs(self) -> list[int]:
        """Return the CRC-32 of every piece of a complete file, in order."""
        with self._lock:
            return [self._crcs[index] for index in range(self.pieces)]

    def write(self, index: int, blocks: Sequence[bytes]) -> None:
        """Store one whole piece and note it.

        Raises:
            OSError: as the system has it, e.g. no space left.
        """
        buffers = list(blocks) if len(blocks) <= _MOST_BUFFERS else [b"".join(blocks)]
        crc = 0
        for buffer in buffers:
            crc = zlib.crc32(buffer, crc)
        _write_all(self._fd, buffers, index * self.piece)
        with self._lock:
            os.write(self._journal, f"{index} {crc:08x}\n".encode())
            self._crcs[index] = crc

    def read(self, index: int) -> bytes | None:
        """Return a piece's bytes; None, and forget the piece, if they are not those that were written.

        Raises:
            OSError: as the system has it, e.g. a bad sector.
        """
        data = os.pread(self._fd, self.length(index), index * self.piece)
        with self._lock:
            if zlib.crc32(data) == self._crcs.get(index):
                return data
            self._crcs.pop(index, None)
        return None

    def forget(self) -> None:
        """Forget all pieces: the file as a whole is not what it should be.

        Raises:
            OSError: as the system has it.
        """
        with self._lock:
            self._crcs.clear()
            os.close(self._journal)
            self._journal = self._open_journal(fresh=True)

    def finish(self, target: Path) -> None:
        """Give the complete file its name, in one step that leaves no half file behind, and drop the journal.

        Raises:
            OSError: as the system has it.
        """
        os.fsync(self._fd)
        self.path.replace(target)
        self.close()
        self._journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files; what is on disk stays for the next run."""
        with self._lock:
            # Exactly once: a number that is closed twice may by then be somebody else's file or connection.
            is_open, self._is_open = self._is_open, False
        if is_open:
            os.close(self._fd)
            os.close(self._journal)

    def _open_journal(self, *, fresh: bool) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if fresh else 0)
        journal = os.open(self._journal_path, flags, _MODE)
        header = {"version": _VERSION, "identity": self._identity, "size": self.size, "piece": self.piece}
        with contextlib.suppress(OSError):
            os.fchmod(journal, shared_mode(self.path.parent) & 0o666)
        # After a line that was cut short, a newline makes the next one whole.
        os.write(journal, f"{json.dumps(header)}\n".encode() if fresh else b"\n")
        return journal


def seed_journal(folder: Path, name: str, header: dict[str, Any], crcs: dict[int, int]) -> None:
    """Write the journal for a file that is put back among the unfinished ones to be mended.

    ``header`` has ``identity``, ``size`` and ``piece``, as ``PartialFile`` will be opened with; ``crcs`` the good ones.

    Raises:
        OSError: as the system has it.
    """
    lines = [json.dumps({"version": _VERSION, **header}), *(f"{index} {crc:08x}" for index, crc in crcs.items())]
    (folder / f"{name}.journal").write_text("\n".join(lines) + "\n", encoding="ascii")


def _read_journal(path: Path) -> tuple[dict[str, Any], dict[int, int]]:
    try:
        first, *lines = path.read_text(encoding="ascii", errors="replace").split("\n")
        header = json.loads(first)
    except (OSError, ValueError):
        return {}, {}
    if not isinstance(header, dict) or header.get("version") != _VERSION:
        return {}, {}
    crcs: dict[int, int] = {}
    for line in lines:
        index, _, crc = line.partition(" ")
        if index.isdigit() and len(crc) == 8:  # noqa: PLR2004 - a CRC-32 in hex
            with contextlib.suppress(ValueError):
                crcs[int(index)] = int(crc, 16)
    return header, crcs


def _write_all(fd: int, buffers: list[bytes], offset: int) -> None:
    total = sum(map(len, buffers))
    written = os.pwritev(fd, buffers, offset)
    if written < total:  # a signal or a nearly full disk; the rest tells which
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            count = os.pwrite(fd, rest, offset + written)
            written, rest = written + count, rest[count:]
