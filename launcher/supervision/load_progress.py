"""How far a process is in reading its model: which part of the files it has mapped into memory or read.

A core that maps its files has so many of their bytes resident, a core that reads them stands at such a position; both
can be seen from outside, in ``/proc``, also of the processes that it starts itself. Where neither can, there is no
figure.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.hardware.host_memory import read_text

_KIB = 1024


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The files that a process loads, seen through its ``/proc`` folder."""

    pid: int
    files: tuple[Path, ...]
    root: Path = Path("/")

    def total(self) -> int:
        """Return the bytes of all files."""
        return sum(file.stat().st_size for file in self.files if file.is_file())

    def done(self) -> int:
        """Return the bytes that were read or mapped so far; 0 when it cannot be told."""
        counts = dict.fromkeys(_names(self.files), 0)
        for pid in self._family():
            mapped, positions = self._mapped(pid), self._positions(pid)
            for name in counts:
                # With several GPUs, each process takes its own part of every file.
                counts[name] += max(mapped.get(name, 0), positions.get(name, 0))
        return sum(min(count, os.stat(name).st_size) for name, count in counts.items() if os.path.isfile(name))  # noqa: PTH113, PTH116

    def _family(self) -> list[int]:
        """Return the process and all that descend from it."""
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in self._entries(pid, "task"):
                words = read_text(self.root / f"proc/{pid}/task/{task}/children").split()
                waiting.extend(int(word) for word in words if word.isdigit() and int(word) not in found)
        return found

    def _mapped(self, pid: int) -> dict[str, int]:
        """Return the resident bytes of each mapped file."""
        resident: dict[str, int] = {}
        current = ""
        for line in read_text(self.root / f"proc/{pid}/smaps").splitlines():
            fields = line.split(None, 5)
            if len(fields) == 6 and "-" in fields[0]:  # noqa: PLR2004 - address, rights, offset, device, inode, path
                current = fields[5]
            elif "-" in fields[0] and not fields[0].endswith(":"):
                current = ""
            elif current and fields[0] == "Rss:":
                resident[current] = resident.get(current, 0) + int(fields[1]) * _KIB
        return resident

    def _positions(self, pid: int) -> dict[str, int]:
        """Return the furthest position in each open file."""
        found: dict[str, int] = {}
        for number in self._entries(pid, "fd"):
            try:
                name = os.readlink(self.root / f"proc/{pid}/fd/{number}")  # noqa: PTH115 - no path is wanted
            except OSError:
                continue
            info = read_text(self.root / f"proc/{pid}/fdinfo/{number}").split()
            if len(info) > 1 and info[0] == "pos:" and info[1].isdigit():
                found[name] = max(found.get(name, 0), int(info[1]))
        return found

    def _entries(self, pid: int, folder: str) -> list[str]:
        try:
            return os.listdir(self.root / f"proc/{pid}/{folder}")  # noqa: PTH208 - the names are all that is needed
        except OSError:
            return []


def _names(files: Sequence[Path]) -> list[str]:
    return [os.path.realpath(file) for file in files]
