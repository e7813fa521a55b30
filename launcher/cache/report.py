"""What is to be known about a cache folder before it is used: for ``check-cache-env`` and ``doctor``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from launcher.cache.lock import read_lease
from launcher.cache.store import Cache, existing_ancestor, gigabytes, storage_error
from launcher.errors import CodedError

_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class CacheReport:
    """The state of a cache folder.

    Attributes:
        exists: whether the folder is there; it is made when it is first written to.
        writable: whether this user can write there.
        free_bytes: room for this user; None if the volume does not say.
        filesystem: kind of the volume, e.g. ``ext4`` or ``nfs4``.
        has_locks: whether the volume keeps locks; without them the lease alone tells writers apart. None: not tried.
        has_links: whether it has symbolic links; None: not tried.
        writer: who fills the cache at the moment, ``host (process)``; None if nobody does.
        problems: what keeps the cache from being used, each with what helps.
        remarks: what is worth knowing but keeps nobody from anything.
    """

    root: Path
    exists: bool
    writable: bool
    free_bytes: int | None
    filesystem: str | None
    has_locks: bool | None
    has_links: bool | None
    writer: str | None
    problems: tuple[CodedError, ...]
    remarks: tuple[str, ...]


def inspect_cache(cache: Cache, needed: int = 0) -> CacheReport:
    """Look at the cache folder; it is made if it does not exist. ``needed`` bytes are to be downloaded."""
    problems: list[CodedError] = []
    remarks: list[str] = []
    try:
        cache.probe()
    except CodedError as error:
        # A drive that does not answer would hang every further question, too.
        return CacheReport(
            cache.root, exists=False, writable=False, free_bytes=None, filesystem=None, has_locks=None, has_links=None,
            writer=None, problems=(error,), remarks=(),
        )  # fmt: skip
    exists = cache.root.is_dir()
    denied = cache.writable_problem()
    if denied is not None:
        problems.append(denied)
        remarks.append("a read-only cache is used as it is when it has every file of the profile")
    elif needed:
        with contextlib.suppress(OSError):
            try:
                cache.check_space(needed)
            except CodedError as error:
                problems.append(error)
    has_locks = _try_lock(cache.notes) if denied is None else None
    if has_locks is False:
        remarks.append(f"this volume keeps no locks; a dead writer is taken for dead after {cache.lease_s:.0f} s")
    has_links = _try_link(cache.notes) if denied is None else None
    if has_links is False:
        remarks.append("this volume has no symbolic links; hard links are used")
    return CacheReport(
        cache.root, exists, denied is None, _free(cache.root, problems), _filesystem(cache.root), has_locks, has_links,
        _writer(cache), tuple(problems), tuple(remarks),
    )  # fmt: skip


def report_lines(report: CacheReport) -> list[str]:
    """Return the report for people, one fact a line, problems with their remedies last."""
    free = gigabytes(report.free_bytes) if report.free_bytes is not None else "unknown"
    lines = [
        f"Cache folder:  {report.root}" + ("" if report.exists else " (was not there)"),
        f"Writable:      {'yes' if report.writable else 'no'}, as uid {os.geteuid()}, gid {os.getegid()}",
        f"Free:          {free} ({report.filesystem or 'unknown file system'})",
    ]
    if report.writer:
        lines.append(f"Being filled:  by {report.writer}")
    lines += [f"Note: {remark}" for remark in report.remarks]
    for problem in report.problems:
        lines += [f"Problem: {problem.message}", f"  Remedy: {problem.remedy}"]
    return lines


def _free(root: Path, problems: list[CodedError]) -> int | None:
    try:
        facts = os.statvfs(existing_ancestor(root))
    except OSError as error:
        problems.append(storage_error(error, root))
        return None
    return facts.f_bavail * facts.f_frsize if facts.f_blocks else None


def _filesystem(root: Path) -> str | None:
    """Return the kind of the volume that ``root`` lies on: the mount with the longest path above it."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place, best, kind = Path(os.path.realpath(existing_ancestor(root))), -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        # Blanks in a path are written as \040.
        point = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def _try_lock(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _try_link(folder: Path) -> bool:
    name = folder / f".link-{secrets.token_hex(6)}"
    try:
        name.symlink_to("nowhere")
        name.unlink()
    except OSError:
        return False
    return True


def _writer(cache: Cache) -> str | None:
    lease = read_lease(cache.notes / "writer.json")
    return f"{lease.get('host')} (process {lease.get('pid')})" if lease else None
