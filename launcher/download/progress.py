"""What a download tells about itself: one immutable state, sent a few times a second to whoever draws or logs it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from launcher.cache.store import gigabytes

_WINDOW_S: Final = 10.0


class Phase(StrEnum):
    """What is being done for all files together."""

    CHECKING = "checking"
    """Looking at what the cache has; files whose record does not fit are read and checked."""
    RESOLVING = "resolving"
    """Asking the source for names, sizes and checksums."""
    WAITING = "waiting"
    """Another process fills the same cache; the figures are its figures."""
    DOWNLOADING = "downloading"
    """Bytes arrive and are checked."""
    UPLOADING = "uploading"
    """Files are copied to a mirror."""
    DONE = "done"
    """Every file is in the cache and was checked; of a mirror, every file is there."""


class FilePhase(StrEnum):
    """What is being done for one file."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    UPLOADING = "uploading"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class FileState:
    """One file: bytes on disk and in all; ``bytes_total`` is None while the source did not say."""

    name: str
    phase: FilePhase
    bytes_done: int
    bytes_total: int | None


@dataclass(frozen=True, slots=True)
class DownloadState:
    """All files together.

    Attributes:
        bytes_done: bytes that need not be fetched any more, those of earlier runs included.
        bytes_total: bytes of all files; None while a size is unknown.
        bytes_received: bytes that this process got from the network so far, also those that had to be thrown away.
        rate: bytes per second over the last seconds; None before there is something to measure.
        eta_s: seconds that the rest takes at this rate.
        note: one line for people, e.g. whom this process waits for; empty when there is nothing to say.
    """

    phase: Phase
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_received: int = 0
    rate: float | None = None
    eta_s: float | None = None
    files: tuple[FileState, ...] = ()
    note: str = ""


class Progress(Protocol):
    """Whoever wants to know. Called from one thread at a time, about four times a second and at each change of phase.

    An exception that ``update`` raises ends the download and reaches the caller of ``fetch_workspace``; what was
    fetched stays, and the next run goes on from there.
    """

    def update(self, state: DownloadState) -> None:
        """Take the newest state."""


class Silent:
    """Tells nobody."""

    def update(self, state: DownloadState) -> None:
        """Do nothing."""


class Rate:
    """Bytes per second over the last ten seconds, from a counter that only grows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._points: deque[tuple[float, int]] = deque()

    def __call__(self, count: int) -> float | None:
        """Take the counter's value and return the rate; None until it can be known."""
        now = self._clock()
        self._points.append((now, count))
        while len(self._points) > 2 and now - self._points[1][0] > _WINDOW_S:  # noqa: PLR2004 - a rate needs two points
            self._points.popleft()
        then, before = self._points[0]
        return (count - before) / (now - then) if now > then else None


def describe(state: DownloadState) -> str:
    """Return one line for people: phase, amount, rate and time left."""
    parts = [f"model files: {state.phase}"]
    if state.bytes_total:
        share = 100 * state.bytes_done / state.bytes_total
        parts.append(f"{gigabytes(state.bytes_done)} of {gigabytes(state.bytes_total)} ({share:.0f} %)")
    if state.rate is not None and state.phase in (Phase.DOWNLOADING, Phase.WAITING):
        parts.append(f"{state.rate / 1e6:.1f} MB/s")
    if state.eta_s is not None:
        parts.append(f"about {state.eta_s:.0f} s left")
    if state.note:
        parts.append(state.note)
    return ", ".join(parts)
