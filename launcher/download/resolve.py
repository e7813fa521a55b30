"""Makes files that are missing fully known: asks the hub or the mirror for names, sizes, checksums and addresses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from launcher.cache.records import Checksum
from launcher.cache.store import RepositoryFolder
from launcher.download.access import Access
from launcher.download.assets import Asset, Location
from launcher.download.credentials import origin
from launcher.download.listings import Listing, hub_listing, keep_listing, ngc_listing, parse_listing
from launcher.download.locations import Locations
from launcher.download.network import Client
from launcher.download.refusals import refusal
from launcher.download.sources import (
    HubSource,
    LocalSource,
    NgcSource,
    S3Source,
    Source,
    WebSource,
    mirrored,
    parse_source,
)
from launcher.download.stock import Entry, WantedFile
from launcher.errors import ChecksumError, NetworkError, NotFoundError

_OK: Final = 200
_PARTIAL: Final = 206
_EMPTY: Final = 416
_MARK: Final = re.compile(r"[A-Za-z0-9._-]{8,100}")


class Resolver:
    """Asks once per repository and remembers."""

    def __init__(self, access: Access, client: Client, locations: Locations) -> None:
        self._override = access.repository_override
        self._client = client
        self._locations = locations
        self.listings: list[tuple[Source, Listing]] = []

    def list_repositories(self, wanted: Iterable[WantedFile], entries: Iterable[Entry]) -> None:
        """Ask for the lists of all repositories that something is not known about.

        Raises:
            LaunchError: a hub refuses or cannot be reached.
        """
        sources = [parse_source(file.uri) for file in wanted]
        sources += [entry.source for entry in entries if self._needs_listing(entry)]
        for source in sources:
            if not isinstance(source, HubSource | NgcSource) or self._is_listed(source):
                continue
            self.listings.append((source, self._ask(source)))

    def keep_listings(self, folder_of: dict[Source, RepositoryFolder]) -> None:
        """Store what was learnt in the cache.

        Raises:
            OSError: as the system has it.
        """
        for source, listing in self.listings:
            if not listing.files:
                continue  # a mirror that keeps none
            folder = folder_of[source]
            keep_listing(folder, listing)
            revision = source.revision if isinstance(source, HubSource) else listing.commit
            folder.remember_commit(revision, listing.commit)

    def asset(self, entry: Entry) -> Asset | LocalSource:
        """Return a missing file, fully known; or where it lies, if the mirror is a folder of this machine.

        Raises:
            LaunchError: the source refuses, has no such file, or has another than the manifest says.
        """
        source, folder = entry.source, entry.folder
        if isinstance(source, LocalSource) or folder is None:
            raise NotFoundError(f"{entry.name} does not exist", "check the path and its mount")
        self._compare(entry)
        place: Source = source
        if self._override and isinstance(source, HubSource | NgcSource):
            place = mirrored(replace(source, file=entry.file), self._override)
        if isinstance(place, LocalSource):
            if not place.path.is_file():
                raise NotFoundError(f"the mirror has no {place.path}", "mirror the profile again")
            return place
        location = self._locations.of_file(place, entry.file, entry.commit or "")
        size, validator = entry.size, None
        if size is None or entry.checksum is None:
            size, validator = self._probe(location, entry.size)
        name = blob_name(entry.checksum, validator, location.url)
        return Asset(
            entry.name, location, size, entry.checksum, validator, folder.blobs / name, folder.notes / f"{name}.json"
        )

    def _is_mirrored(self, source: Source) -> bool:
        return bool(self._override) and isinstance(source, HubSource | NgcSource)

    def _is_listed(self, source: Source) -> bool:
        return any(other == source or _repository(other) == _repository(source) for other, _ in self.listings)

    def _needs_listing(self, entry: Entry) -> bool:
        # NGC's list has no checksums, so it is only asked for names; a pinned file with all facts needs no list either.
        if not isinstance(entry.source, HubSource) or self._is_listed(entry.source):
            return False
        return entry.commit is None or entry.size is None or entry.checksum is None

    def _ask(self, source: HubSource | NgcSource) -> Listing:
        if self._is_mirrored(source) and not (self._override or "").startswith("ngc://"):
            return self._ask_mirror(source)
        attempts = self._locations.attempts()
        if isinstance(source, HubSource):
            return hub_listing(self._client, self._locations.hub_api(source), source.revision, attempts)
        return ngc_listing(self._client, self._locations.ngc_files(source), source.version, attempts)

    def _ask_mirror(self, source: HubSource | NgcSource) -> Listing:
        revision = source.revision if isinstance(source, HubSource) else source.version
        place = mirrored(replace(source, file=None), self._override or "")
        if isinstance(place, LocalSource):
            with contextlib.suppress(OSError, ValueError):
                return parse_listing(json.loads(place.path.read_bytes()), revision)
            return Listing(revision, {})
        location = self._locations.of_file(place, "", "")

        def once() -> Listing:
            with self._client.open(location.url, location.credential) as reply:
                if reply.status == _OK:
                    return parse_listing(reply.json(), revision)
                error = refusal(location.subject, reply)
                # A mirror that was filled by other means has files but no list; then each file is asked for itself.
                if isinstance(error, NotFoundError):
                    return Listing(revision, {})
                raise error

        return self._locations.attempts().run(once)

    def _compare(self, entry: Entry) -> None:
        for source, listing in self.listings:
            if _repository(source) != _repository(entry.source) or not listing.files:
                continue
            listed = listing.files.get(entry.file)
            if listed is None:
                raise NotFoundError(f"{_repository(source)} has no file {entry.file}", "see its list of files")
            has_other_size = entry.size is not None and listed.size != entry.size
            given = entry.checksum
            has_other_sum = (
                given is not None and listed.checksum is not None
                and given.algorithm == listed.checksum.algorithm and given.value != listed.checksum.value
            )  # fmt: skip
            if has_other_size or has_other_sum:
                raise ChecksumError(
                    f"{_repository(source)} has another {entry.file} than the manifest asks for",
                    "pin the revision that the manifest was made for, or take a newer manifest",
                )

    def _probe(self, location: Location, expected: int | None) -> tuple[int, str | None]:
        """Ask for one byte, and so learn a file's size and version; HEAD is not allowed everywhere."""

        def once() -> tuple[int | None, str | None]:
            with self._client.open(location.url, location.credential, {"Range": "bytes=0-0"}) as reply:
                mark = reply.headers.get("ETag")
                total = reply.headers.get("Content-Range", "").rpartition("/")[2]
                if reply.status in (_PARTIAL, _EMPTY) and total.isdigit():
                    return int(total), mark
                if reply.status != _OK:
                    raise refusal(location.subject, reply)
                length = reply.headers.get("Content-Length", "")
                return int(length) if length.isdigit() else None, mark

        size, mark = self._locations.attempts().run(once)
        if size is None:
            size = expected
        if size is None:
            raise NetworkError(f"{location.subject.name} does not say how long it is", "give its size in the manifest")
        if expected is not None and expected != size:
            raise NetworkError(
                f"{location.subject.name} has {size} bytes, not the {expected} of the manifest", "check the manifest"
            )
        return size, mark


def blob_name(checksum: Checksum | None, validator: str | None, url: str) -> str:
    """Return the name of a content: its checksum, else the source's mark of this version, else one from the address."""
    if checksum is not None:
        return checksum.value.lower()
    mark = (validator or "").removeprefix("W/").strip('"')
    # Another source's mark may look like a checksum of ours, which the name would then claim to be.
    if _MARK.fullmatch(mark) and not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", mark) and not mark.startswith("."):
        return mark
    return "u" + hashlib.sha256(f"{origin(url)} {url.partition('?')[0]} {mark}".encode()).hexdigest()[:40]


def _repository(source: Source) -> str:
    match source:
        case HubSource():
            return f"hf://{source.repository}@{source.revision}"
        case NgcSource():
            return f"ngc://{source.repository}:{source.version}"
        case WebSource() | S3Source() | LocalSource():
            return source.canonical
