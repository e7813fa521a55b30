"""``python -m launcher.entrypoint``: the first program of the container image; it becomes what the arguments ask for.

No shell takes part: process 1 is the server itself, so signals reach it. Without arguments it serves; a program of the
image is run as it is; options, and a model's path or address, go to ``nim-serve``; all else to ``gemma4-nim``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SERVE: Final = "nim-serve"
PROGRAM: Final = "gemma4-nim"


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return the program to become, with its arguments."""
    if not arguments:
        return [SERVE]
    first = arguments[0]
    if shutil.which(first):
        return list(arguments)
    is_for_serve = first.startswith("-") or "://" in first or Path(first).exists()
    return [SERVE if is_for_serve else PROGRAM, *arguments]


def main() -> None:
    """Replace this process; does not return."""
    words = command_line(sys.argv[1:])
    # The commands lie beside the interpreter, whatever PATH says.
    program = shutil.which(words[0], path=str(Path(sys.executable).parent)) or shutil.which(words[0]) or words[0]
    os.execv(program, [program, *words[1:]])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
