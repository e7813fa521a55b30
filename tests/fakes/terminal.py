"""A program in a pseudo terminal: what it shows, and keys to press."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Self

from config.environment import child_environment

DEADLINE_S = 100.0
CTRL_C = "\x03"
CTRL_D = "\x04"
ENTER = "\r"
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # without a controlling terminal Ctrl-C is a character like any other
os.execv(sys.argv[1], sys.argv[1:])
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs a command in a terminal of its own; a context manager."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in child_environment({}).items() if not name.startswith("NIM_")}
        kept.pop("NO_COLOR", None)
        self._environment = {**kept, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", **(variables or {})}
        self._command = list(command)
        self._seen = ""
        self._place = 0

    def __enter__(self) -> Self:
        """Start the command with its input, output and errors on the terminal."""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *self._command],
            stdin=slave, stdout=slave, stderr=slave, env=self._environment, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def raw(self) -> str:
        """Return everything shown so far, escape sequences included."""
        return self._seen

    def wait_for(self, text: str) -> str:
        """Wait until ``text`` is shown after what was waited for last; return what was shown up to it.

        Raises:
            TimeoutError: it did not come.
        """
        end = time.monotonic() + DEADLINE_S
        while text not in (shown := _ESCAPES.sub("", self._seen[self._place :])):
            if time.monotonic() > end or not self._read(end - time.monotonic()):
                message = f"{text!r} was not shown: {shown!r}"
                raise TimeoutError(message)
        found = shown[: shown.index(text) + len(text)]
        self._place = self._after(text)
        return found

    def end(self) -> int:
        """Read to the end and return the status of the process."""
        while self._read(DEADLINE_S):
            pass
        return self.process.wait(DEADLINE_S)

    def _after(self, text: str) -> int:
        place = self._place
        while text not in _ESCAPES.sub("", self._seen[self._place : place]):
            place += 1
        return place

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], max(timeout_s, 0))[0]:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # Linux says so when the last process has closed the terminal
            return False
        self._seen += data.decode(errors="replace")
        return bool(data)
