"""Shows a download: a bar on a terminal, else a line at each change and every ten seconds. Goes to standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from launcher.download.progress import DownloadState, Phase, describe

SAY_EVERY_S: Final = 10.0


class DownloadBar:
    """Takes the states of a download (``launcher.download.progress.Progress``); a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._phase: Phase | None = None
        self._said = 0.0

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self._console
            )
            self._bar.start()
            self._task = self._bar.add_task("model files", total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state standing."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, state: DownloadState) -> None:
        """Show the newest state."""
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=str(state.phase),
                total=state.bytes_total,
                completed=state.bytes_done,
                note=state.note,
            )
            return
        now = time.monotonic()
        if state.phase is self._phase and now - self._said < SAY_EVERY_S:
            return
        self._phase, self._said = state.phase, now
        sys.stderr.write(describe(state) + "\n")
        sys.stderr.flush()
