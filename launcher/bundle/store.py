"""The folder of engine bundles: one folder each, named by its content; several machines may share the volume.

A bundle gets its name in one step when it is complete. What is not complete lies under ``.work`` in a folder that
begins with the bundle's name; it is nobody's, unless somebody holds the bundle's lock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.settings import Settings
from engine_build.errors import BundleError
from engine_build.manifest import MANIFEST, Manifest, is_bundle, read_manifest
from launcher.cache.store import existing_ancestor, gigabytes, make_folder, shared_mode, storage_error
from launcher.commands.storage import cache_root
from launcher.errors import DiskError, ExitCode, LaunchError

BUNDLES: Final = "bundles"
WORK: Final = ".work"
LOCKS: Final = ".locks"
RECEIPTS: Final = ".receipts"


@dataclass(frozen=True, slots=True)
class Kept:
    """A bundle of the folder: its manifest, or what is wrong with that."""

    path: Path
    manifest: Manifest | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BundleStore:
    """The folder of bundles."""

    root: Path

    def path(self, bundle_id: str) -> Path:
        """Return where a bundle lies, or will."""
        return self.root / bundle_id

    def holds(self, bundle_id: str) -> bool:
        """Tell whether a bundle is there; whether it is in order is not looked at."""
        return (self.path(bundle_id) / MANIFEST).is_file()

    def receipt(self, bundle_id: str) -> Path:
        """Return where it is remembered which of a bundle's files were read and found in order."""
        return self.root / RECEIPTS / f"{bundle_id}.json"

    def kept(self) -> Iterator[Kept]:
        """Yield every bundle, in the order of their names."""
        for path in sorted(self.root.glob("*")) if self.root.is_dir() else []:
            if path.name.startswith(".") or not is_bundle(path):
                continue
            try:
                yield Kept(path, read_manifest(path))
            except BundleError as error:
                yield Kept(path, None, error.message)

    def find(self, text: str) -> Path:
        """Return the bundle that a path, a name or the beginning of a name stands for.

        Raises:
            LaunchError: there is none, or several.
        """
        path = Path(text).expanduser()
        if is_bundle(path):
            return path
        names = [kept.path for kept in self.kept() if kept.path.name.startswith(text)] if "/" not in text else []
        if len(names) == 1:
            return names[0]
        if names:
            listed = ", ".join(found.name for found in names)
            raise LaunchError(ExitCode.BAD_SETTINGS, f"{text} stands for {len(names)} bundles", f"name one: {listed}")
        raise LaunchError(ExitCode.NOT_FOUND, f"{text} is no engine bundle", f"gemma4-nim bundle list: {self.root}")

    def work_folder(self, bundle_id: str) -> Path:
        """Make an empty folder to build in; the caller holds the bundle's lock.

        Raises:
            LaunchError: it cannot be made.
        """
        work = self.root / WORK / f"{bundle_id}.{secrets.token_hex(4)}"
        try:
            self.remove_leftovers(bundle_id)
            make_folder(work)
            work.chmod(shared_mode(work.parent))
        except OSError as error:
            raise storage_error(error, work) from error
        return work

    def check_space(self, needed: int) -> None:
        """See that ``needed`` bytes fit.

        Raises:
            DiskError: they do not.
        """
        volume = existing_ancestor(self.root)
        facts = os.statvfs(volume)
        free = facts.f_bavail * facts.f_frsize
        if facts.f_blocks and needed > free:
            raise DiskError(
                f"{self.root} has too little room: about {gigabytes(needed)} needed, {gigabytes(free)} free",
                "free some, or set NIM_BUNDLE_PATH to a larger volume",
            )

    def publish(self, work: Path, bundle_id: str) -> Path:
        """Give a finished bundle its name, in one step; one that was there before makes way.

        Raises:
            LaunchError: the folder cannot be written.
        """
        target = self.path(bundle_id)
        try:
            _flush(work)
            old = self.root / WORK / f"{bundle_id}.old-{secrets.token_hex(4)}"
            with contextlib.suppress(FileNotFoundError):
                target.rename(old)
            work.rename(target)
            shutil.rmtree(old, ignore_errors=True)
            self.receipt(bundle_id).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, target) from error
        return target

    def remove(self, path: Path) -> None:
        """Delete a bundle. It loses its name first, so that nobody sees half of it.

        Raises:
            LaunchError: it cannot be deleted.
        """
        gone = self.root / WORK / f"{path.name}.old-{secrets.token_hex(4)}"
        try:
            make_folder(gone.parent)
            path.rename(gone)
            shutil.rmtree(gone)
            self.receipt(path.name).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, path) from error

    def leftovers(self, bundle_id: str = "") -> list[Path]:
        """Return what builds that were killed left behind, of one bundle or of all."""
        work = self.root / WORK
        return sorted(work.glob(f"{bundle_id}.*" if bundle_id else "*")) if work.is_dir() else []

    def remove_leftovers(self, bundle_id: str) -> None:
        """Delete what builds of a bundle left behind; the caller holds its lock."""
        for path in self.leftovers(bundle_id):
            shutil.rmtree(path, ignore_errors=True)


def bundle_store(settings: Settings) -> BundleStore:
    """Return the folder that the settings name."""
    folder = settings.build.folder
    return BundleStore(folder.expanduser() if folder is not None else cache_root(settings) / BUNDLES)


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total


def _flush(folder: Path) -> None:
    """Have the system write a folder's files out, so that a power cut leaves no bundle with holes."""
    for place, _, names in os.walk(folder):
        for path in (*(Path(place) / name for name in names), Path(place)):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
