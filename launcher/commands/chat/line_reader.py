"""Reads what the user types: line editing and history, completion of commands and paths, texts of several lines.

A line that ends with a backslash goes on in the next; a line of three quotation marks opens a text that the next such
line closes. Text pasted into a terminal arrives whole, line breaks included.
"""

from __future__ import annotations

import glob
import readline
from collections.abc import Sequence
from pathlib import Path
from typing import Final

QUOTES: Final = '"""'
_BRACKETED_PASTE: Final = "set enable-bracketed-paste on"


class LineReader:
    """Reads one text after the other from a terminal."""

    def __init__(self, commands: Sequence[str], *, has_colours: bool) -> None:
        self._commands = commands
        self._prompt = _prompt("> ", has_colours=has_colours)
        self._more = _prompt(". ", has_colours=has_colours)
        readline.set_completer(self._complete)
        readline.set_completer_delims(" \t\n")
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind(_BRACKETED_PASTE)

    def read(self) -> str:
        """Return the next text, without the marks that held its lines together.

        Raises:
            EOFError: the input has ended.
            KeyboardInterrupt: the user gave up on this text.
        """
        line = input(self._prompt)
        if line.strip() == QUOTES:
            return self._block()
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(input(self._more))
        return "\n".join(lines)

    def _block(self) -> str:
        lines: list[str] = []
        while (line := input(self._more)).strip() != QUOTES:
            lines.append(line)
        return "\n".join(lines)

    def _complete(self, text: str, state: int) -> str | None:
        found = self._candidates(text, readline.get_line_buffer())
        return found[state] if state < len(found) else None

    def _candidates(self, text: str, line: str) -> list[str]:
        if text == line and text.startswith("/"):
            return [f"{name} " for name in self._commands if name.startswith(text)]
        if not line.startswith("/"):
            return []
        start = str(Path(text).expanduser()) + ("/" if text.endswith("/") else "")
        names = sorted(glob.glob(f"{glob.escape(start)}*"))  # noqa: PTH207 - completes text, not a folder's content
        return [f"{name}/" if Path(name).is_dir() else name for name in names]


def _prompt(text: str, *, has_colours: bool) -> str:
    # The marks tell readline which characters take no place on the screen.
    return f"\001\033[1;36m\002{text}\001\033[0m\002" if has_colours else text
