"""The folder of LoRA adapters: what has come, changed and gone since the last look. Every look is a scan of the folder.

A broken adapter is left out with one line in the log, and looked at again when its files have changed. What is served
are copies in a folder of our own, which stay as they are whatever happens to the originals.
"""

from __future__ import annotations

import itertools
import logging
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from engine.vllm.adapter_files import CONFIG, WEIGHTS, AdapterError, copy_adapter
from engine.vllm.held_folder import HeldFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from config.runtime import AdapterRuntime

logger = logging.getLogger(__name__)

MAX_ADAPTERS: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}")
_Signature = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class AdapterCopy:
    """A checked adapter: its name, a number that no other copy has, and the folder of the copy."""

    name: str
    number: int
    folder: Path

    @property
    def unique_name(self) -> str:
        """Return a name that no other copy has or will have."""
        return f"{self.name}#{self.number}"


@dataclass(slots=True)
class Changes:
    """What a look has found: copies that are new or of changed adapters, and names that are no longer there."""

    found: list[AdapterCopy] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


class AdapterFolder:
    """Owns the copies. ``look`` may be called in any thread, but not in two at the same time."""

    def __init__(self, adapters: AdapterRuntime, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Prepare; nothing is read yet. ``shapes`` are those of the model, see ``copy_adapter``."""
        self._adapters = adapters
        self._shapes = shapes
        self._seen: dict[str, _Signature] = {}
        self._numbers = itertools.count(1)
        self._place = HeldFolder("g4nim-adapters-")
        self._was_readable = True

    def look(self) -> Changes:
        """Return what has changed. A folder that cannot be read changes nothing."""
        try:
            folders = {path.name: path for path in sorted(self._adapters.source.iterdir()) if _may_be_adapter(path)}
        except OSError as error:
            if self._was_readable:
                logger.warning("the folder of adapters %s cannot be read: %s", self._adapters.source, error.strerror)
            self._was_readable = False
            return Changes()
        self._was_readable = True
        changes = Changes(gone=[name for name in self._seen if name not in folders])
        for name in changes.gone:
            del self._seen[name]
        for name, folder in folders.items():
            signature = _signature(folder)
            if self._seen.get(name) == signature:
                continue
            self._seen[name] = signature
            copy = self._copied(folder)
            if copy is not None:
                changes.found.append(copy)
        return changes

    def _copied(self, folder: Path) -> AdapterCopy | None:
        number = next(self._numbers)
        copy = AdapterCopy(folder.name, number, self._place.path / str(number))
        try:
            self._check_name(folder)
            copy_adapter(folder, self._adapters.source, copy.folder, self._shapes, self._adapters.max_rank)
        except (AdapterError, OSError) as error:
            self.leave_out(copy, str(error))
            return None
        return copy

    def _check_name(self, folder: Path) -> None:
        if folder.name in self._adapters.reserved_names:
            raise AdapterError("it has a name of the model itself")
        if not _NAME.fullmatch(folder.name):
            raise AdapterError(
                "its name may have letters, digits and . _ : @ + - only, 128 at most, a letter or digit first"
            )
        if len(self._seen) > MAX_ADAPTERS:
            raise AdapterError(f"there are more than {MAX_ADAPTERS}")

    def leave_out(self, copy: AdapterCopy, reason: str) -> None:
        """Say why an adapter, or its newest version, is not served, and drop the copy."""
        logger.warning("the adapter %s is left out: %s", self._adapters.source / copy.name, reason)
        self.drop(copy)

    def drop(self, copy: AdapterCopy) -> None:
        """Delete a copy that nobody uses any more."""
        shutil.rmtree(copy.folder, ignore_errors=True)

    def close(self) -> None:
        """Delete all copies."""
        self._place.close()


def _may_be_adapter(path: Path) -> bool:
    """Tell whether something in the folder is meant: folders are, but for hidden ones, as volumes have them."""
    return not path.name.startswith(".") and path.is_dir()


def _signature(folder: Path) -> _Signature:
    return tuple(_stamp(folder / name) for name in (CONFIG, WEIGHTS))


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
