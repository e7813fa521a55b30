"""Links: from a snapshot's names to its contents, and from a workspace, which an engine reads, to snapshots."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from launcher.cache.store import WORKSPACES, Cache, make_folder, shared_mode, storage_error

_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES, errno.EINVAL, errno.EXDEV})


def link(target: Path, name: Path, *, relative: bool = True) -> None:
    """Make ``name`` lead to ``target`` in one step, replacing what was there.

    A relative link survives that the volume is mounted elsewhere. Volumes without symbolic links get a hard one.

    Raises:
        OSError: as the system has it.
    """
    make_folder(name.parent)
    # The folder's real path: a link is followed from where it truly lies.
    goal = os.path.relpath(target, Path(os.path.realpath(name.parent))) if relative else str(target)
    fresh = name.with_name(f".link-{secrets.token_hex(6)}")
    try:
        fresh.symlink_to(goal)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.link(os.path.realpath(target), fresh)
    try:
        fresh.replace(name)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def build_workspace(cache: Cache, files: Mapping[str, Path]) -> Path:
    """Return a folder with these files: the name in the folder -> where the content lies.

    It is made in the cache once and found there by later starts; where the cache is read-only, in the scratch folder.

    Raises:
        CacheError: it can be made nowhere.
    """
    key = "\n".join(f"{name}\t{_place(path, cache.root)}" for name, path in sorted(files.items()))
    folder = cache.root / WORKSPACES / hashlib.sha256(key.encode()).hexdigest()[:16]
    if _is_built(folder, files):
        return folder
    try:
        return _build(folder, files)
    except OSError as error:
        scratch = cache.scratch
        try:
            scratch = scratch or Path(tempfile.mkdtemp(prefix="gemma4-nim-workspace-"))
            return _build(scratch / folder.name, files, relative=False)
        except OSError:
            raise storage_error(error, folder) from error


def _build(folder: Path, files: Mapping[str, Path], *, relative: bool = True) -> Path:
    make_folder(folder.parent)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        fresh.chmod(shared_mode(folder.parent))
        for name, target in files.items():
            is_inside = relative and target.is_relative_to(folder.parent.parent)
            link(target, fresh / name, relative=is_inside)
        with contextlib.suppress(OSError):
            fresh.replace(folder)
            return folder
        # Another process was quicker, or the folder is there and misses something.
        if _is_built(folder, files):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _is_built(folder: Path, files: Mapping[str, Path]) -> bool:
    try:
        return all((folder / name).samefile(target) for name, target in files.items())
    except OSError:
        return False


def _place(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
