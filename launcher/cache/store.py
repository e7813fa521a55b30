"""The cache folder: where each source's files lie in it, and whether this user can use it.

The layout is NIM's, which is the Hugging Face hub's: per repository ``blobs``, ``refs`` and ``snapshots/<revision>``
with links into ``blobs``. So a cache that NIM or ``huggingface_hub`` filled is used as it is, and the other way round.
What the launcher notes for itself lies in ``.gemma4-nim`` folders beside.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from launcher.download.sources import HubSource, NgcSource, S3Source, WebSource
from launcher.errors import CacheError, CodedError, DiskError

NOTES: Final = ".gemma4-nim"
WORKSPACES: Final = "workspaces"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PARENT_BITS: Final = 0o2777
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_SUCH: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache folder and how it is shared.

    Attributes:
        root: ``NIM_CACHE_PATH``; made when it is first written to.
        scratch: folder for the workspace when ``root`` cannot be written; None is the system's temporary folder.
        probe_timeout_s: how long the folder may take to answer; network drives that are gone never do.
        lease_s: a writer on another machine that shows no sign of life for so long is taken for dead.
    """

    root: Path
    scratch: Path | None = None
    probe_timeout_s: float = 60.0
    lease_s: float = 90.0

    def repository(self, source: HubSource | NgcSource | WebSource | S3Source) -> RepositoryFolder:
        """Return the folder of the repository that a file belongs to."""
        match source:
            case HubSource():
                return RepositoryFolder(self.root / "huggingface" / "hub" / _folder_name(source.repository))
            case NgcSource():
                return RepositoryFolder(self.root / "ngc" / "hub" / _folder_name(source.repository))
            case S3Source():
                above = source.key.rpartition("/")[0]
                return RepositoryFolder(self.root / "s3" / "hub" / _place_name(source.bucket, above))
            case WebSource():
                parts = urlsplit(source.url)
                host = parts.netloc.rpartition("@")[2]
                place = (
                    f"{parts.path.rpartition('/')[0]}?{parts.query}" if parts.query else parts.path.rpartition("/")[0]
                )
                return RepositoryFolder(self.root / "https" / "hub" / _place_name(host, place))

    @property
    def notes(self) -> Path:
        """The folder for what the launcher notes about the cache as a whole."""
        return self.root / NOTES

    def probe(self) -> None:
        """Look at the folder, with a deadline.

        Raises:
            CacheError: it does not answer, as a network drive whose server is gone; or it is no folder.
        """
        outcome: list[OSError | bool] = []
        thread = threading.Thread(target=_look, args=(self.root, outcome), daemon=True, name="cache-probe")
        thread.start()
        thread.join(self.probe_timeout_s)
        if not outcome:
            raise CacheError(
                f"the cache folder {self.root} does not answer within {self.probe_timeout_s:.0f} s",
                "see whether the network drive's server is up; NIM_CACHE_PROBE_TIMEOUT sets the patience",
            )
        if isinstance(outcome[0], OSError):
            raise storage_error(outcome[0], self.root)
        if not outcome[0]:
            raise CacheError(f"{self.root} is not a folder", "set NIM_CACHE_PATH to a folder")

    def writable_problem(self) -> CodedError | None:
        """Return why this user cannot write here, with the command that helps; None if it works. Writes a test file."""
        try:
            make_folder(self.notes)
            with tempfile.TemporaryFile(dir=self.notes) as file:
                file.write(b"x")
        except OSError as error:
            return storage_error(error, self.root)
        return None

    def check_space(self, needed: int) -> None:
        """See that ``needed`` bytes fit on the volume.

        Raises:
            DiskError: they do not; says how much is needed and free, and where.
        """
        volume = existing_ancestor(self.root)
        facts = os.statvfs(volume)
        free = facts.f_bavail * facts.f_frsize
        # Some network and object-store drives say 0 for everything, which is no answer.
        if facts.f_blocks and needed > free:
            raise DiskError(
                f"{self.root} has too little room: {gigabytes(needed)} needed, {gigabytes(free)} free on {volume}",
                f"free {gigabytes(needed - free)} there, or set NIM_CACHE_PATH to a larger volume",
            )


@dataclass(frozen=True, slots=True)
class RepositoryFolder:
    """One repository in the cache."""

    path: Path

    @property
    def blobs(self) -> Path:
        """Contents, named by checksum or by the source's own mark."""
        return self.path / "blobs"

    @property
    def notes(self) -> Path:
        """The launcher's own records about the blobs."""
        return self.path / NOTES

    def commit(self, revision: str) -> str | None:
        """Return the commit that a branch or tag stood for when it was fetched; None if it never was."""
        if _COMMIT.fullmatch(revision):
            return revision
        with contextlib.suppress(OSError):
            text = (self.path / "refs" / revision).read_text(encoding="ascii", errors="replace").strip()
            if text and "/" not in text and ".." not in text:
                return text
        return revision if (self.path / "snapshots" / revision).is_dir() else None

    def remember_commit(self, revision: str, commit: str) -> None:
        """Note what a branch or tag stands for.

        Raises:
            OSError: as the system has it.
        """
        if revision != commit:
            write_atomically(self.path / "refs" / revision, commit.encode())

    def snapshot(self, commit: str) -> Path:
        """Return the folder with the files of one commit."""
        return self.path / "snapshots" / commit

    def listing(self, commit: str) -> Path:
        """Return the file with the names, sizes and checksums of one commit, in ``huggingface_hub``'s form."""
        return self.path / "trees" / f"{commit}.json"


def make_folder(path: Path) -> None:
    """Make a folder with all above it, each with the rights of the folder that it lies in.

    So a volume that a group shares stays shared whatever the umask: the next container may have another uid.

    Raises:
        OSError: as the system has it.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        with contextlib.suppress(OSError):
            path.chmod(shared_mode(path.parent))


def shared_mode(folder: Path) -> int:
    """Return the rights for what is made in ``folder``: the folder's own, but never open to all below a sticky one."""
    mode = folder.stat().st_mode
    return 0o755 if mode & stat.S_ISVTX else (mode & _PARENT_BITS) | 0o700


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that readers see the old or the new one, never a half.

    Raises:
        OSError: as the system has it.
    """
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(handle, shared_mode(path.parent) & 0o666)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def storage_error(error: OSError, path: Path) -> CodedError:
    """Return the error for people: no right, no room, or a drive that fails."""
    where = Path(error.filename) if isinstance(error.filename, str) else path
    if error.errno in _DENIED:
        return _denied(error, where)
    if error.errno in _FULL:
        volume = existing_ancestor(path)
        facts = os.statvfs(volume)
        free = facts.f_bavail * facts.f_frsize
        return DiskError(
            f"no room is left for {where} ({gigabytes(free)} free on {volume}): {error.strerror}",
            "free some room or raise the quota; what was fetched is kept, the next start goes on from there",
        )
    if error.errno in _NO_SUCH:
        return CacheError(f"{where} vanished: {error.strerror}", "see whether the volume is still mounted")
    return DiskError(f"{where} cannot be read or written: {error.strerror or error}", "check the drive and its mount")


def _denied(error: OSError, path: Path) -> CacheError:
    """Return the error for a folder that this user may not write, with the command that helps."""
    place = existing_ancestor(path)
    facts = place.stat()
    who = f"uid {os.geteuid()}, gid {os.getegid()}"
    owner = f"it belongs to uid {facts.st_uid}, gid {facts.st_gid}, mode {stat.S_IMODE(facts.st_mode):04o}"
    if error.errno == errno.EROFS:
        remedy = "mount the volume writable once to fill it, or set NIM_CACHE_PATH to a writable folder"
    else:
        remedy = f"on the host: chown -R {os.geteuid()} {place}  (or: chgrp -R 0 {place} && chmod -R g+rwX {place})"
    return CacheError(f"{place} cannot be written by {who}: {error.strerror}; {owner}", remedy)


def existing_ancestor(path: Path) -> Path:
    """Return ``path`` or the nearest folder above it that exists."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            if place.exists():
                return place
    return Path(path.anchor)


def gigabytes(count: int) -> str:
    """Return an amount as people write it."""
    return f"{count / 1e9:.2f} GB" if count >= 10_000_000 else f"{count / 1e6:.2f} MB"  # noqa: PLR2004 - readable digits


def _look(root: Path, outcome: list[OSError | bool]) -> None:
    try:
        place = existing_ancestor(root)
        outcome.append(place.is_dir())
    except OSError as error:
        outcome.append(error)


def _folder_name(repository: str) -> str:
    return "--".join(["models", *repository.split("/")])


def _place_name(host: str, folder: str) -> str:
    mark = hashlib.sha256(f"{host}/{folder}".encode()).hexdigest()[:12]
    words = quote(host, safe="")[:80]
    return f"models--{words}--{mark}"
