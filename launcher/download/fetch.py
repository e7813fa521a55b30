"""The way in: makes the workspace of some files, from the cache if it has them, else from their sources.

In order: look at the cache; if all is there and was checked, no lock is taken and no connection is opened. Else, as the
one writer of this cache: learn what is not known, see that the disk has room, fetch, check, link.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.cache.links import build_workspace, link
from launcher.cache.lock import WriterLock
from launcher.cache.records import Record, write_record
from launcher.cache.store import Cache, RepositoryFolder, make_folder, storage_error
from launcher.download.access import Access
from launcher.download.assets import Asset
from launcher.download.checking import check_present
from launcher.download.locations import Locations
from launcher.download.network import Client
from launcher.download.progress import DownloadState, Phase, Progress, Silent
from launcher.download.resolve import Resolver
from launcher.download.retry import Pace
from launcher.download.sources import LocalSource, Source
from launcher.download.stock import Entry, Presence, Stock, WantedFile, presence, take_stock
from launcher.download.transfer import Transfer
from launcher.errors import ChecksumError, NotFoundError


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A file that is wanted, for callers that have no manifest; the fields are those of ``WantedFile``."""

    path: str
    uri: str
    size: int | None = None
    sha256: str | None = None
    include: tuple[str, ...] = ()


def fetch_workspace(
    files: Sequence[WantedFile], cache: Cache, access: Access, progress: Progress | None = None, *, verify: bool = False
) -> Path:
    """Return the folder with all ``files``, each whole and checked.

    With ``verify`` the files that were checked before are read and checked, too, and what is damaged is mended.

    Raises:
        NotFoundError: a source has no such file; offline, the cache has not.
        AccessError: a source wants a key, or another one.
        LicenceGateError: a source wants its licence accepted first.
        NetworkError: a source cannot be reached, or breaks off too often.
        ChecksumError: a file is not what its checksum says, also after it was fetched again.
        CacheError: the cache cannot be read or written.
        DiskError: the disk has too little room, or fails.
        LaunchError: a URI or a name cannot be used.
    """
    return _Fetch(files, cache, access, progress or Silent(), verify=verify).run()


@dataclass
class _Fetch:
    files: Sequence[WantedFile]
    cache: Cache
    access: Access
    progress: Progress
    verify: bool = field(kw_only=True)

    def run(self) -> Path:
        self.cache.probe()
        stock = self._stock()
        if not self.verify and _is_complete(stock):
            return self._workspace(stock.entries)
        problem = self.cache.writable_problem()
        if problem is not None:
            return self._without_writing(stock, problem)
        with WriterLock(self.cache).acquire(self.progress) as lock:
            progress = _Both(lock, self.progress)
            stock = self._stock()
            try:
                self._fill(stock, progress)
            except OSError as error:
                raise storage_error(error, self.cache.root) from error
            return self._workspace(self._stock().entries)

    def _stock(self) -> Stock:
        try:
            return take_stock(self.files, self.cache, offline=self.access.offline)
        except OSError as error:
            raise storage_error(error, self.cache.root) from error

    def _workspace(self, entries: Sequence[Entry]) -> Path:
        folder = build_workspace(self.cache, {entry.name: _place(entry) for entry in entries})
        total = sum(entry.size or 0 for entry in entries)
        self.progress.update(DownloadState(Phase.DONE, total, total))
        return folder

    def _without_writing(self, stock: Stock, problem: Exception) -> Path:
        """Use a cache that cannot be written as it is, if all is there; nothing can be checked or noted then."""
        absent = [entry.name for entry in stock.entries if presence(entry) is Presence.MISSING]
        if not absent and not stock.unlisted:
            return self._workspace(stock.entries)
        if self.access.offline:
            raise _offline(stock, self.cache, absent)
        raise problem

    def _fill(self, stock: Stock, progress: Progress) -> None:
        check_present(stock.entries, progress, everything=self.verify)
        absent = [entry.name for entry in stock.entries if presence(entry) is Presence.MISSING]
        if not absent and not stock.unlisted:
            return
        if self.access.offline:
            raise _offline(stock, self.cache, absent)
        progress.update(DownloadState(Phase.RESOLVING))
        client = Client(self.access)
        pace = Pace(self.access.patience, lambda trouble: progress.update(DownloadState(Phase.RESOLVING, note=trouble)))
        try:
            resolver = Resolver(self.access, client, Locations(self.access, client, pace))
            resolver.list_repositories(stock.unlisted, [entry for entry in stock.entries if entry.name in absent])
            resolver.keep_listings(_folders(resolver, self.cache))
            stock = take_stock(self.files, self.cache, resolver.listings)
            entries = [entry for entry in stock.entries if presence(entry) is Presence.MISSING]
            self._transfer([(entry, resolver.asset(entry)) for entry in entries], client, progress)
        finally:
            client.close()
        # What was linked and not fetched: a file on a mirror's disk, or the same content of another revision.
        check_present(stock.entries, progress, everything=False)
        if not _is_complete(stock):
            raise ChecksumError("files changed while they were put into the cache", "start again")

    def _transfer(self, wanted: list[tuple[Entry, Asset | LocalSource]], client: Client, progress: Progress) -> None:
        targets: dict[Path, list[Path]] = {}
        assets: dict[Path, Asset] = {}
        for entry, asset in wanted:
            name = _place(entry)
            if isinstance(asset, LocalSource):
                link(asset.path, name, relative=False)
                continue
            if asset.blob.is_file() and asset.record.is_file():
                link(asset.blob, name)  # the same content under another name or commit
                continue
            assets[asset.blob] = asset
            targets.setdefault(asset.blob, []).append(name)
        for asset in assets.values():
            make_folder(asset.blob.parent)
        if not assets:
            return
        self.cache.check_space(sum(_bytes_to_come(asset) for asset in assets.values()))

        def finished(asset: Asset, record: Record) -> None:
            write_record(asset.record, record)
            for name in targets[asset.blob]:
                link(asset.blob, name)

        Transfer(list(assets.values()), self.access, client, finished).run(progress)


class _Both:
    """Tells the caller and those who wait for the cache."""

    def __init__(self, lock: WriterLock, progress: Progress) -> None:
        self._lock = lock
        self._progress = progress

    def update(self, state: DownloadState) -> None:
        self._lock.report(state)
        self._progress.update(state)


def _is_complete(stock: Stock) -> bool:
    return not stock.unlisted and all(presence(entry) is Presence.PRESENT for entry in stock.entries)


def _offline(stock: Stock, cache: Cache, absent: Iterable[str]) -> NotFoundError:
    names = [*absent, *(file.uri for file in stock.unlisted)]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")  # noqa: PLR2004 - a line
    return NotFoundError(
        f"offline, and the cache {cache.root} lacks {shown}",
        "fill it where there is a network with download-to-cache, or unset NIM_OFFLINE and NIM_DISABLE_MODEL_DOWNLOAD",
    )


def _folders(resolver: Resolver, cache: Cache) -> dict[Source, RepositoryFolder]:
    return {source: cache.repository(source) for source, _ in resolver.listings if not isinstance(source, LocalSource)}


def _place(entry: Entry) -> Path:
    """Return where a file lies, or will."""
    if entry.path is None:
        raise NotFoundError(f"which commit {entry.source.canonical} means is not known", "pin one in the manifest")
    return entry.path


def _bytes_to_come(asset: Asset) -> int:
    """Return what the file still takes on the disk; an unfinished one has part of its room already."""
    try:
        taken = os.stat(asset.blob.with_name(f"{asset.blob.name}.partial")).st_blocks * 512  # noqa: PTH116
    except OSError:
        taken = 0
    return max(0, asset.size - taken)
