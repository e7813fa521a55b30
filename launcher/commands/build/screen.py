"""Shows a build: a bar for the step at hand on a terminal, else a line at each change and every ten seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from engine_build.build_plan import Step

SAY_EVERY_S: Final = 10.0


class BuildScreen:
    """Takes the steps of a build (``launcher.bundle.lock.BuildProgress``); a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown = ("", "")
        self._said = 0.0

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            columns = (TextColumn("[bold]{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=self._console)
            self._bar.start()
            self._task = self._bar.add_task("build", total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state standing."""
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: Step, text: str, done: int, total: int) -> None:
        """Show the step at hand."""
        if self._bar is not None and self._task is not None:
            if self._shown[0] != step:
                self._bar.reset(self._task)
            self._bar.update(self._task, description=str(step), total=total or None, completed=done, note=text)
            self._shown = (step, text)
            return
        self._say(step, text, f", {done} of {total}" if total else "")

    def waiting(self, note: str) -> None:
        """Show who else builds the same bundle."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description="waiting", total=None, note=note)
            return
        self._say("waiting", note, "")

    def _say(self, step: str, text: str, amount: str) -> None:
        now = time.monotonic()
        if (step, text) == self._shown and now - self._said < SAY_EVERY_S:
            return
        self._shown, self._said = (step, text), now
        sys.stderr.write(f"{step}{': ' if text else ''}{text}{amount}\n")
        sys.stderr.flush()
