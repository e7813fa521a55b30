"""What a chat shows: the answer as it comes, the thought dim beside it, and notes.

On a terminal everything goes to standard output. Through a pipe only the answer does; thoughts and notes go to standard
error, so that the next program reads the answer and nothing else.
"""

from __future__ import annotations

import re
from typing import Final

from rich.console import Console
from rich.status import Status
from rich.text import Text

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
"""Control characters but tab and newline: text of a model must not steer the terminal."""


class Screen:
    """Writes one answer after the other."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._notes = self._out if self._out.is_terminal else Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._shown = ""
        self._ends_line = True

    @property
    def is_terminal(self) -> bool:
        """Tell whether somebody watches."""
        return self._out.is_terminal

    @property
    def has_colours(self) -> bool:
        """Tell whether colours are wanted."""
        return self._out.is_terminal and not self._out.no_color

    def note(self, text: str, style: str = "dim") -> None:
        """Write a line about the chat itself."""
        self.finish()
        self._notes.print(Text(clean(text), style))

    def failure(self, message: str, remedy: str = "") -> None:
        """Write a line about what went wrong, and what helps."""
        self.finish()
        self._notes.print(Text.assemble((clean(message), "red"), (f"  ({clean(remedy)})" if remedy else "", "dim")))

    def wait(self, text: str) -> None:
        """Show that something is awaited, on a terminal only; the next output replaces it."""
        if not self._notes.is_terminal:
            return
        if self._status is None:
            self._status = self._notes.status(clean(text), spinner="dots", spinner_style="dim")
            self._status.start()
        else:
            self._status.update(clean(text))

    def thought(self, text: str) -> None:
        """Write a piece of the model's thought."""
        self._piece(text, "thought", "dim italic")

    def answer(self, text: str) -> None:
        """Write a piece of the answer."""
        self._piece(text, "answer", "")

    def finish(self) -> None:
        """End the line, whatever was written last."""
        self._stop_waiting()
        if not self._ends_line:
            (self._out if self._shown == "answer" else self._notes).print()
        self._shown, self._ends_line = "", True

    def _piece(self, text: str, kind: str, style: str) -> None:
        if not text:
            return
        self._stop_waiting()
        if self._shown and self._shown != kind:
            self.finish()
            if self.is_terminal:
                self._out.print()
        console = self._out if kind == "answer" else self._notes
        if console.is_terminal:
            console.print(Text(clean(text), style), end="")
        else:
            console.file.write(text)
        console.file.flush()
        self._shown, self._ends_line = kind, text.endswith("\n")

    def _stop_waiting(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def clean(text: str) -> str:
    """Return text without characters that steer a terminal."""
    return _CONTROL.sub("", text)
