"""What the cache has of the files that are wanted, found without any network: present, to be checked, or missing."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from launcher.cache.records import Checksum, read_record
from launcher.cache.store import Cache, RepositoryFolder
from launcher.download.listings import Listed, Listing, kept_listing, snapshot_listing
from launcher.download.sources import (
    HubSource,
    LocalSource,
    NgcSource,
    S3Source,
    Source,
    WebSource,
    file_asked_for,
    parse_source,
    safe_name,
)
from launcher.errors import ExitCode, LaunchError, NotFoundError

_PATTERN_MARKS: Final = "*?["
_ALL: Final = ("", ".", "*")
_ONLY_VERSION: Final = "main"
_HUB_MARKS: Final = {64: "sha256", 40: "git-sha1"}


class WantedFile(Protocol):
    """A file of a profile, as the manifest has it.

    ``path`` is its name in the workspace. Where ``uri`` names a whole repository, the last part of ``path`` may be a
    pattern such as ``*``; which files those are, the hub's own list says.
    """

    @property
    def path(self) -> str:
        """Name in the workspace, or a pattern."""

    @property
    def uri(self) -> str:
        """Where it comes from."""

    @property
    def size(self) -> int | None:
        """Bytes, if known."""

    @property
    def sha256(self) -> str | None:
        """SHA-256 in hex, if known."""

    @property
    def include(self) -> tuple[str, ...]:
        """Of a whole repository, the patterns of the files that are wanted; none given: those that ``path`` matches."""


class Presence(StrEnum):
    """What the cache has of one file."""

    PRESENT = "present"
    """It is there and was checked, or cannot be checked any better."""
    UNCHECKED = "unchecked"
    """It is there, but nothing says that it was checked since it was written."""
    MISSING = "missing"
    """It is not there, or has another size."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that is wanted.

    Attributes:
        name: its name in the workspace.
        file: its name in the repository.
        commit: what the revision stands for; None if that is not known yet.
        notes: where records about contents are kept.
    """

    name: str
    source: Source
    file: str
    size: int | None
    checksum: Checksum | None
    folder: RepositoryFolder | None
    commit: str | None
    notes: Path

    @property
    def path(self) -> Path | None:
        """Where it lies, or will lie, in the cache; None while its commit is unknown."""
        if isinstance(self.source, LocalSource):
            return self.source.path
        if self.folder is None or self.commit is None:
            return None
        return self.folder.snapshot(self.commit) / self.file

    @property
    def record(self) -> Path | None:
        """Where the record about its content is, if the content is there."""
        path = self.path
        if path is None or not path.exists():
            return None
        content = Path(os.path.realpath(path))
        if self.folder is not None and content.parent == Path(os.path.realpath(self.folder.blobs)):
            return self.notes / f"{content.name}.json"
        # A file outside the cache, or under a name of its own: by its whole path.
        return self.notes / f"at-{hashlib.sha256(str(content).encode()).hexdigest()[:40]}.json"


@dataclass(frozen=True, slots=True)
class Stock:
    """All wanted files as far as they are known; ``unlisted`` are those whose list of names has to be asked for."""

    entries: tuple[Entry, ...]
    unlisted: tuple[WantedFile, ...]


def take_stock(
    files: Iterable[WantedFile],
    cache: Cache,
    listings: Sequence[tuple[Source, Listing]] = (),
    *,
    offline: bool = False,
) -> Stock:
    """Return what is wanted, file by file.

    ``listings`` are lists of repositories that were asked for; without one, the cache's own is used. ``offline`` takes
    what a snapshot holds for its list where the cache has none, as in one that another program filled.

    Raises:
        LaunchError: a URI or a name cannot be used; a local file or folder does not exist.
    """
    entries: dict[str, Entry] = {}
    unlisted: list[WantedFile] = []
    for wanted in files:
        source = parse_source(wanted.uri)
        listing = next((listing for other, listing in listings if _same_repository(other, source)), None)
        found = _entries(wanted, source, cache, listing, offline=offline)
        if found is None:
            unlisted.append(wanted)
        for entry in found or ():
            if entries.setdefault(entry.name, entry) != entry:
                raise LaunchError(ExitCode.BAD_SETTINGS, f"two different files are to be named {entry.name}")
    return Stock(tuple(entries.values()), tuple(unlisted))


def presence(entry: Entry) -> Presence:
    """Return what the cache has of one file."""
    path = entry.path
    try:
        facts = path.stat() if path is not None else None
    except OSError:
        facts = None
    if facts is None or path is None or (entry.size is not None and facts.st_size != entry.size):
        return Presence.MISSING
    record = read_record(entry.record) if entry.record is not None else None
    if record is None:
        return Presence.PRESENT if entry.checksum is None else Presence.UNCHECKED
    return Presence.PRESENT if record.fits(path) and record.proves(entry.checksum) else Presence.UNCHECKED


def is_whole_repository(wanted: WantedFile, source: Source) -> bool:
    """Tell whether ``wanted`` stands for files that only the repository's list names."""
    if isinstance(source, HubSource | NgcSource):
        return source.file is None and any(mark in PurePosixPath(wanted.path).name for mark in _PATTERN_MARKS)
    return False


def _entries(
    wanted: WantedFile, source: Source, cache: Cache, listing: Listing | None, *, offline: bool
) -> list[Entry] | None:
    if isinstance(source, LocalSource):
        return _local(wanted, source, cache.notes)
    folder = cache.repository(source)
    commit = listing.commit if listing else folder.commit(_revision(source))
    if commit is None and not isinstance(source, HubSource):
        commit = _revision(source)  # only the hub has branches, whose commit has to be asked for
    if listing is None and commit is not None:
        listing = kept_listing(folder, commit) or (snapshot_listing(folder, commit) if offline else None)
    if is_whole_repository(wanted, source):
        if listing is None:
            return None
        above, pattern = PurePosixPath(wanted.path).parent, PurePosixPath(wanted.path).name
        patterns = wanted.include or (pattern,)
        names = [name for name in listing.files if any(fnmatch.fnmatchcase(name, one) for one in patterns)]
        if not names:
            listed = ", ".join(patterns)
            raise NotFoundError(f"no file of {wanted.uri} is named {listed}", "see the repository's list of files")
        return [_entry(safe_name(str(above / name)), wanted, source, name, (folder, commit, listing)) for name in names]
    file = file_asked_for(source) or wanted.path
    path = PurePosixPath(wanted.path)
    name = str(path.parent / PurePosixPath(file).name) if path.name in _ALL else wanted.path
    return [_entry(safe_name(name), wanted, source, safe_name(file), (folder, commit, listing))]


def _entry(
    name: str,
    wanted: WantedFile,
    source: HubSource | NgcSource | WebSource | S3Source,
    file: str,
    place: tuple[RepositoryFolder, str | None, Listing | None],
) -> Entry:
    folder, commit, listing = place
    listed = (listing.files.get(file) if listing else None) or Listed(-1, None)
    # Size and checksum of a manifest's entry are those of one file, never of each file of a repository.
    is_one = not is_whole_repository(wanted, source)
    size = wanted.size if is_one and wanted.size is not None else (listed.size if listed.size >= 0 else None)
    checksum = Checksum("sha256", wanted.sha256.lower()) if is_one and wanted.sha256 else listed.checksum
    entry = Entry(name, source, file, size, checksum, folder, commit, folder.notes)
    return entry if checksum or not isinstance(source, HubSource) else _with_name_as_checksum(entry)


def _with_name_as_checksum(entry: Entry) -> Entry:
    """Take the checksum from the content's name: the hub's layout names contents by it."""
    if entry.path is None or not entry.path.exists():
        return entry
    name = Path(os.path.realpath(entry.path)).name
    algorithm = _HUB_MARKS.get(len(name))
    if algorithm is None or not re.fullmatch(r"[0-9a-f]+", name):
        return entry
    return replace(entry, checksum=Checksum("sha256" if algorithm == "sha256" else "git-sha1", name))


def _local(wanted: WantedFile, source: LocalSource, notes: Path) -> list[Entry]:
    path = source.path
    is_all = PurePosixPath(wanted.path).name in _ALL
    if path.is_dir() and not is_all:
        path /= safe_name(wanted.path)
    checksum = Checksum("sha256", wanted.sha256.lower()) if wanted.sha256 else None
    if path.is_file():
        name = path.name if is_all else safe_name(wanted.path)
        return [Entry(name, LocalSource(path), path.name, wanted.size, checksum, None, None, notes)]
    found = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else []
    if not found:
        raise NotFoundError(f"{path} does not exist or holds no files", "check the path and its mount")
    return [
        Entry(file.relative_to(path).as_posix(), LocalSource(file), file.name, None, None, None, None, notes)
        for file in found
    ]


def _revision(source: HubSource | NgcSource | WebSource | S3Source) -> str:
    match source:
        case HubSource():
            return source.revision
        case NgcSource():
            return source.version
        case _:
            return _ONLY_VERSION


def _same_repository(one: Source, other: Source) -> bool:
    match one, other:
        case HubSource(), HubSource():
            return (one.repository, one.revision) == (other.repository, other.revision)
        case NgcSource(), NgcSource():
            return (one.repository, one.version) == (other.repository, other.version)
        case _:
            return False
