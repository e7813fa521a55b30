"""One builder per bundle: the cache's lock, held for one bundle instead of the whole cache, with its steps as progress.

The rules for builders that died and for volumes that machines share are those of ``launcher.cache.lock``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from engine_build.build_plan import Step
from launcher.bundle.store import LOCKS, BundleStore
from launcher.cache.lock import WriterLock
from launcher.cache.store import Cache
from launcher.download.progress import DownloadState, FilePhase, FileState, Phase


class BuildProgress(Protocol):
    """Whoever shows how far a build is."""

    def step(self, step: Step, text: str, done: int, total: int) -> None:
        """Take the step, what is being done, and how much of how much is done (0 of 0 where that is not counted)."""

    def waiting(self, note: str) -> None:
        """Learn who else builds the same bundle, and how far that is."""


@dataclass(slots=True)
class BuildLock:
    """The right to build one bundle; a context manager."""

    store: BundleStore
    bundle_id: str
    progress: BuildProgress
    _lock: WriterLock | None = None

    @property
    def folder(self) -> Path:
        """Return the folder that the lock's files lie in."""
        return self.store.root / LOCKS / self.bundle_id

    def __enter__(self) -> Self:
        """Wait until nobody else builds this bundle.

        Raises:
            CacheError: the folder cannot be written.
        """
        self._lock = WriterLock(Cache(self.folder))
        self._lock.acquire(_Waiting(self.progress))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one build."""
        if self._lock is not None:
            self._lock.__exit__(kind, error, trace)

    def step(self, step: Step, text: str, done: int, total: int) -> None:
        """Tell a step: to whoever watches here, and to those who wait elsewhere."""
        self.progress.step(step, text, done, total)
        if self._lock is not None:
            name = f"{step}, {text}" if text else str(step)
            state = FileState(name, FilePhase.QUEUED, done, total)
            self._lock.report(DownloadState(Phase.CHECKING, done, total or None, files=(state,)))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Shows the other builder's progress; the lock tells it in the words of a download."""

    progress: BuildProgress

    def update(self, state: DownloadState) -> None:
        note = state.note.replace("fills the cache", "builds this bundle")
        for file in state.files:
            counted = f" ({file.bytes_done} of {file.bytes_total})" if file.bytes_total else ""
            note = f"{note}: {file.name}{counted}"
        self.progress.waiting(note)


class _BusyError(Exception):
    """Somebody else holds the lock."""


class _Impatient:
    """Waits for nobody."""

    def step(self, step: Step, text: str, done: int, total: int) -> None:
        """Never called: nothing is built."""

    def waiting(self, note: str) -> None:
        raise _BusyError(note)


def is_being_built(store: BundleStore, bundle_id: str) -> bool:
    """Tell whether somebody, here or on another machine, builds this bundle.

    Raises:
        CacheError: the folder cannot be written.
    """
    try:
        with BuildLock(store, bundle_id, _Impatient()):
            return False
    except _BusyError:
        return True
