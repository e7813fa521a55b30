"""Fills a mirror: copies the files of profiles to an S3 store, an https server that takes PUT, or a folder.

The names are those that ``NIM_REPOSITORY_OVERRIDE`` looks for (``sources.mirrored``). Beside the files goes each
repository's list, so that a mirror knows sizes and checksums as the hub does.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from launcher.cache.store import Cache, make_folder, storage_error, write_atomically
from launcher.download.access import Access
from launcher.download.assets import Location
from launcher.download.credentials import UNSIGNED, S3Credential
from launcher.download.fetch import fetch_workspace
from launcher.download.listings import kept_listing, listing_json
from launcher.download.locations import Locations
from launcher.download.network import Client
from launcher.download.progress import DownloadState, FilePhase, FileState, Phase, Progress, Rate
from launcher.download.refusals import refusal
from launcher.download.retry import Pace
from launcher.download.sources import HubSource, LocalSource, NgcSource, S3Source, Source, WebSource, mirrored
from launcher.download.stock import Entry, WantedFile, take_stock
from launcher.errors import ExitCode, LaunchError, NetworkError

_PART: Final = 64 * 1024 * 1024
_MOST_PARTS: Final = 10_000
_DONE: Final = frozenset({200, 201, 204})


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What was done: files and bytes that were copied, and files that were there already."""

    copied: int
    kept: int
    bytes_copied: int


def mirror_files(
    files: Sequence[WantedFile], cache: Cache, access: Access, destination: str, progress: Progress
) -> Mirrored:
    """Fetch ``files`` into the cache and copy them to ``destination``, as ``NIM_REPOSITORY_OVERRIDE`` takes it.

    Raises:
        LaunchError: as ``fetch_workspace``; the destination refuses, or is no place that files can be put to.
    """
    fetch_workspace(files, cache, access, progress)
    entries = [entry for entry in take_stock(files, cache, offline=access.offline).entries if _is_hub(entry)]
    if not entries:
        raise LaunchError(ExitCode.BAD_SETTINGS, "none of these files comes from a hub, so there is nothing to mirror")
    mirror = _Mirror(access, destination, progress, entries)
    try:
        return mirror.run(cache)
    finally:
        mirror.client.close()


class _Mirror:
    def __init__(self, access: Access, destination: str, progress: Progress, entries: Sequence[Entry]) -> None:
        keyed = replace(access, repository_override=destination)
        self.client = Client(keyed)
        self._pace = Pace(access.patience)
        self._locations = Locations(keyed, self.client, self._pace)
        self._destination = destination
        self._progress = progress
        self._entries = entries
        self._sizes = {entry.name: path.stat().st_size for entry in entries if (path := entry.path) is not None}
        self._done = 0
        self._rate = Rate()

    def run(self, cache: Cache) -> Mirrored:
        """Copy everything."""
        copied = kept = moved = 0
        for entry in self._entries:
            path, target = entry.path, self._target(entry.source, entry.file)
            if path is None:
                continue
            if self._has(target, self._sizes[entry.name]):
                kept += 1
                self._tell(entry.name, self._sizes[entry.name])
            else:
                self._put_file(target, path, entry.name)
                copied, moved = copied + 1, moved + self._sizes[entry.name]
        self._put_listings(cache)
        self._progress.update(DownloadState(Phase.DONE, self._done, self._done))
        return Mirrored(copied, kept, moved)

    def _put_listings(self, cache: Cache) -> None:
        done: set[Path] = set()
        for entry in self._entries:
            if isinstance(entry.source, LocalSource) or entry.commit is None:
                continue
            folder = cache.repository(entry.source)
            listing = kept_listing(folder, entry.commit)
            if listing is None or folder.path in done:
                continue
            done.add(folder.path)
            self._put_bytes(self._target(entry.source, None), listing_json(listing))

    def _target(self, source: Source, file: str | None) -> LocalSource | S3Source | WebSource:
        if not isinstance(source, HubSource | NgcSource):
            raise TypeError("only files of a hub are mirrored")
        target = mirrored(replace(source, file=file), self._destination)
        if isinstance(target, HubSource | NgcSource):
            raise LaunchError(ExitCode.BAD_SETTINGS, f"{self._destination} is no place that files can be copied to")
        return target

    def _has(self, target: LocalSource | S3Source | WebSource, size: int) -> bool:
        if isinstance(target, LocalSource):
            return target.path.is_file() and target.path.stat().st_size == size
        location = self._location(target)

        def once() -> bool:
            with self.client.open(location.url, location.credential, {"Range": "bytes=0-0"}) as reply:
                total = reply.headers.get("Content-Range", "").rpartition("/")[2]
                length = total or reply.headers.get("Content-Length", "")
                return reply.status in (200, 206, 416) and length == str(size)

        return self._pace.attempts().run(once)

    def _put_file(self, target: LocalSource | S3Source | WebSource, path: Path, name: str) -> None:
        if isinstance(target, LocalSource):
            try:
                make_folder(target.path.parent)
                fresh = target.path.with_name(f".{target.path.name[-200:]}.copy")
                shutil.copyfile(path, fresh)
                fresh.replace(target.path)
            except OSError as error:
                raise storage_error(error, target.path) from error
            self._tell(name, self._sizes[name])
        elif isinstance(target, S3Source) and self._sizes[name] > _PART:
            self._put_parts(self._location(target), path, name)
        else:
            location = self._location(target)
            with path.open("rb") as file:
                self._send(location, "PUT", location.url, file)
            self._tell(name, self._sizes[name])

    def _put_bytes(self, target: LocalSource | S3Source | WebSource, data: bytes) -> None:
        if isinstance(target, LocalSource):
            try:
                write_atomically(target.path, data)
            except OSError as error:
                raise storage_error(error, target.path) from error
            return
        location = self._location(target)
        self._send(location, "PUT", location.url, data)

    def _put_parts(self, location: Location, path: Path, name: str) -> None:
        """Upload in parts, as S3 wants it for what is larger than 5 GB; a part that fails is sent again."""
        size = max(_PART, -(-self._sizes[name] // _MOST_PARTS))
        text = self._send(location, "POST", f"{location.url}?uploads", b"")
        found = re.search(r"<UploadId>([^<]+)</UploadId>", text)
        if found is None:
            raise NetworkError(f"{location.subject.name}: the store began no upload", "check AWS_ENDPOINT_URL")
        query, marks = f"uploadId={found[1]}", list[str]()
        try:
            with path.open("rb") as file:
                while data := file.read(size):
                    url = f"{location.url}?partNumber={len(marks) + 1}&{query}"
                    marks.append(self._send(location, "PUT", url, data, answer="ETag"))
                    self._tell(name, len(data))
            parts = "".join(
                f"<Part><PartNumber>{number}</PartNumber><ETag>{mark}</ETag></Part>"
                for number, mark in enumerate(marks, 1)
            )
            body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
            outcome = self._send(location, "POST", f"{location.url}?{query}", body)
        except BaseException:
            self._send(location, "DELETE", f"{location.url}?{query}", b"")
            raise
        # S3 answers 200 and may then say in the body that it failed.
        if "<Error>" in outcome:
            raise NetworkError(f"{location.subject.name}: the store could not join the parts", "mirror again")

    def _send(self, location: Location, method: str, url: str, body: bytes | BinaryIO, *, answer: str = "") -> str:
        def once() -> str:
            headers: dict[str, str] = {}
            if not isinstance(body, bytes):
                # Else it would be sent in chunks, which S3 does not take.
                headers["Content-Length"] = str(body.seek(0, os.SEEK_END))
                body.seek(0)
            if isinstance(location.credential, S3Credential):
                headers |= location.credential.signed(method, url, UNSIGNED)
            with self.client.send(method, url, location.credential, headers, body) as reply:
                if reply.status not in _DONE:
                    raise refusal(location.subject, reply)
                return reply.headers.get(answer, "") if answer else reply.text()

        return self._pace.attempts().run(once)

    def _location(self, target: S3Source | WebSource) -> Location:
        return self._locations.of_file(target, "", "")

    def _tell(self, name: str, count: int) -> None:
        self._done += count
        total = sum(self._sizes.values())
        rate = self._rate(self._done)
        eta = (total - self._done) / rate if rate else None
        file = FileState(name, FilePhase.UPLOADING, min(self._done, self._sizes[name]), self._sizes[name])
        self._progress.update(DownloadState(Phase.UPLOADING, self._done, total, 0, rate, eta, (file,)))


def _is_hub(entry: Entry) -> bool:
    return isinstance(entry.source, HubSource | NgcSource)
