"""What a repository holds: names, sizes and checksums, asked from its hub once and kept in the cache.

The kept form is ``huggingface_hub``'s (``trees/<commit>.json``), so each reads the other's. A commit's listing never
changes, so it is never asked for again; what a branch stands for is noted in ``refs`` when it is fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urljoin

from launcher.cache.records import Checksum
from launcher.cache.store import RepositoryFolder, write_atomically
from launcher.download.assets import Location
from launcher.download.messages import host_of
from launcher.download.network import Client
from launcher.download.refusals import refusal
from launcher.download.retry import Attempts
from launcher.download.sources import safe_name
from launcher.errors import LaunchError, NetworkError

_FORMAT: Final = 1
_OK: Final = 200
_MOST_PAGES: Final = 1000
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NEXT: Final = re.compile(r'<([^>]+)>\s*;[^,]*rel="?next"?')


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a repository; ``checksum`` is None if the hub tells none."""

    size: int
    checksum: Checksum | None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of one commit (on NGC: of one version)."""

    commit: str
    files: Mapping[str, Listed]


def kept_listing(folder: RepositoryFolder, commit: str) -> Listing | None:
    """Return the listing that the cache has, or None."""
    try:
        data = json.loads(folder.listing(commit).read_bytes())
        return Listing(commit, _read_files(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, LaunchError):
        return None


def snapshot_listing(folder: RepositoryFolder, commit: str) -> Listing | None:
    """Return what a snapshot holds as its list; None if it is empty or an index names files that are not there."""
    top = folder.snapshot(commit)
    files = {path.relative_to(top).as_posix(): path for path in top.rglob("*") if path.is_file()}
    for name, path in files.items():
        if name.endswith(".safetensors.index.json"):
            try:
                parts = set(json.loads(path.read_bytes())["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError, TypeError):
                return None
            if not parts <= {other.rpartition("/")[2] for other in files}:
                return None
    return Listing(commit, {name: Listed(path.stat().st_size, None) for name, path in files.items()}) if files else None


def keep_listing(folder: RepositoryFolder, listing: Listing) -> None:
    """Store a listing in the cache.

    Raises:
        OSError: as the system has it.
    """
    write_atomically(folder.listing(listing.commit), listing_json(listing))


def listing_json(listing: Listing) -> bytes:
    """Return a listing in the form that is kept in caches and mirrors."""
    files = {name: _written(listed) for name, listed in sorted(listing.files.items())}
    return json.dumps({"format_version": _FORMAT, "commit": listing.commit, "files": files}, indent=1).encode()


def parse_listing(data: Any, commit: str) -> Listing:
    """Read a listing as ``listing_json`` writes it.

    The commit that it names becomes a part of paths in the cache, so it is looked at like the names of files.

    Raises:
        NetworkError: it is none.
    """
    try:
        return Listing(_read_commit(data) or commit, _read_files(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NetworkError("the mirror's list of files cannot be read", "mirror the repository again") from error


def hub_listing(client: Client, api: Location, revision: str, attempts: Attempts) -> Listing:
    """Ask the Hugging Face hub; ``api`` is the repository's place in its API, ``.../api/models/org/name``.

    Raises:
        LaunchError: it refuses, or cannot be reached.
    """
    commit = revision
    if not _COMMIT.fullmatch(revision):
        facts = _get(client, _at(api, f"/revision/{quote(revision, safe='')}"), attempts)[0]
        commit = str(facts.get("sha", "")) if isinstance(facts, dict) else ""
        if not _COMMIT.fullmatch(commit):
            raise NetworkError(f"{api.subject.name}: the hub names no commit for {revision}", "check HF_ENDPOINT")
    files: dict[str, Listed] = {}
    place: Location | None = _at(api, f"/tree/{commit}?recursive=true&expand=false")
    for _ in range(_MOST_PAGES):
        if place is None:
            break
        entries, following = _get(client, place, attempts)
        with _understood(api):
            files |= {safe_name(entry["path"]): _hub_file(entry) for entry in entries if entry["type"] == "file"}
        place = Location(urljoin(place.url, following), api.credential, api.subject) if following else None
    return Listing(commit, files)


def ngc_listing(client: Client, files: Location, version: str, attempts: Attempts) -> Listing:
    """Ask NGC, at ``.../versions/<version>/files``; it tells names and sizes but no checksums.

    Raises:
        LaunchError: it refuses, or cannot be reached.
    """
    found: dict[str, Listed] = {}
    for page in range(_MOST_PAGES):
        data, _ = _get(client, _at(files, f"?page-size=1000&page-number={page}"), attempts)
        with _understood(files):
            entries = {
                safe_name(entry["path"]): Listed(int(entry["sizeInBytes"]), None) for entry in data["modelFiles"]
            }
            is_last = page + 1 >= int(data.get("paginationInfo", {}).get("totalPages", 1))
        is_news = not entries.keys() <= found.keys()
        found |= entries
        if is_last or not is_news:
            break
    return Listing(version, found)


@contextmanager
def _understood(place: Location) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NetworkError(
            f"{host_of(place.url)} answers in another form than a hub does", "check the endpoint and the proxy"
        ) from error


def _get(client: Client, place: Location, attempts: Attempts) -> tuple[Any, str | None]:
    def once() -> tuple[Any, str | None]:
        with client.open(place.url, place.credential, {"Accept": "application/json"}) as reply:
            if reply.status != _OK:
                raise refusal(place.subject, reply)
            following = _NEXT.search(reply.headers.get("Link", ""))
            return reply.json(), following[1] if following else None

    return attempts.run(once)


def _at(place: Location, tail: str) -> Location:
    return Location(place.url + tail, place.credential, place.subject)


def _hub_file(entry: Mapping[str, Any]) -> Listed:
    large = entry.get("lfs")
    if isinstance(large, dict) and _SHA256.fullmatch(str(large.get("oid", ""))):
        return Listed(int(large["size"]), Checksum("sha256", str(large["oid"])))
    oid = str(entry.get("oid", ""))
    return Listed(int(entry["size"]), Checksum("git-sha1", oid) if _COMMIT.fullmatch(oid) else None)


def _read_commit(data: Any) -> str:
    commit = str(data.get("commit") or "")
    if commit and not _VERSION.fullmatch(commit):
        raise ValueError("a commit that leaves its folder")
    return commit


def _read_files(data: Any) -> dict[str, Listed]:
    if data["format_version"] != _FORMAT:
        raise ValueError("another form")
    found: dict[str, Listed] = {}
    for name, facts in data["files"].items():
        sha256, oid = str(facts.get("lfs_sha256") or ""), str(facts.get("blob_id") or "")
        checksum = Checksum("git-sha1", oid) if _COMMIT.fullmatch(oid) else None
        if _SHA256.fullmatch(sha256):
            checksum = Checksum("sha256", sha256)
        found[safe_name(name)] = Listed(int(facts.get("lfs_size") or facts["size"]), checksum)
    return found


def _written(listed: Listed) -> dict[str, object]:
    if listed.checksum is None:
        return {"size": listed.size, "blob_id": ""}
    if listed.checksum.algorithm == "git-sha1":
        return {"size": listed.size, "blob_id": listed.checksum.value}
    # The hub's own id of such a file is that of a pointer, which nobody needs.
    return {"size": listed.size, "blob_id": "", "lfs_sha256": listed.checksum.value, "lfs_size": listed.size}
