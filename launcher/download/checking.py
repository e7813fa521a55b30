"""Checks files that the cache already has, and prepares damaged ones to be mended instead of fetched as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from launcher.cache.records import Checksum, Record, check_file, read_record, write_record
from launcher.download.journal import seed_journal
from launcher.download.progress import DownloadState, FilePhase, FileState, Phase, Progress, Rate
from launcher.download.stock import Entry, Presence, presence
from launcher.errors import ChecksumError

_PIECE: Final = 1024 * 1024
_TELL_EVERY: Final = 256 * 1024 * 1024


def check_present(entries: Sequence[Entry], progress: Progress, *, everything: bool) -> None:
    """Read and check the files that need it: those without a fitting record, or ``everything`` that is there.

    A file that is right gets a record. One that is not loses its name; its good pieces, where a record tells which
    those are, are kept for the download that follows.

    Raises:
        ChecksumError: a file outside the cache is not what it must be.
        OSError: as the system has it.
    """
    wanted = {Presence.UNCHECKED, Presence.PRESENT} if everything else {Presence.UNCHECKED}
    chosen = [(entry, path) for entry in entries if presence(entry) in wanted and (path := entry.path) is not None]
    if not chosen:
        return
    sizes = [path.stat().st_size for _, path in chosen]
    meter = _Meter(progress, sum(sizes))
    for (entry, path), size in zip(chosen, sizes, strict=True):
        meter.begin(entry.name, size)
        _check(entry, path, meter)


def _check(entry: Entry, path: Path, meter: _Meter) -> None:
    record_path = entry.record
    old = read_record(record_path) if record_path is not None else None
    checksum = entry.checksum or (Checksum("sha256", old.sha256) if old is not None else None)
    is_right, record = check_file(path, checksum, old.piece if old else _PIECE, meter.advance)
    if is_right:
        if record_path is not None:
            write_record(record_path, record)
        return
    _set_aside(entry, path, old)


def _set_aside(entry: Entry, path: Path, old: Record | None) -> None:
    blob, record = path.resolve(), entry.record
    if entry.folder is None or not blob.is_relative_to(entry.folder.path.resolve()):
        # Somebody else's file, on a mirror's disk or given by path: it is not ours to mend or to remove.
        raise ChecksumError(f"{blob} is damaged, or not the file that the manifest means", "copy it there again")
    path.unlink()
    checksum = entry.checksum
    if old is None or checksum is None or blob.parent != entry.folder.blobs.resolve():
        blob.unlink(missing_ok=True)
    else:
        # The names that an unfinished file has, so that the download goes on from the good pieces.
        header = {"identity": checksum.identity, "size": old.size, "piece": old.piece}
        seed_journal(blob.parent, blob.name, header, old.good_pieces(blob))
        blob.replace(blob.with_name(f"{blob.name}.partial"))
    if record is not None:
        record.unlink(missing_ok=True)


class _Meter:
    """Adds up what was read and tells the progress now and then."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._told = 0
        self._rate = Rate()
        self._name, self._size, self._start = "", 0, 0

    def begin(self, name: str, size: int) -> None:
        """Begin with the next file."""
        self._name, self._size, self._start = name, size, self._done
        self._tell()

    def advance(self, count: int) -> None:
        """Count bytes that were read."""
        self._done += count
        if self._done - self._told > _TELL_EVERY or self._done == self._total:
            self._tell()

    def _tell(self) -> None:
        self._told = self._done
        rate = self._rate(self._done)
        eta = (self._total - self._done) / rate if rate else None
        file = FileState(self._name, FilePhase.VERIFYING, self._done - self._start, self._size)
        self._progress.update(DownloadState(Phase.CHECKING, self._done, self._total, 0, rate, eta, (file,)))
