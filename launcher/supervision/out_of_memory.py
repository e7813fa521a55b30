"""Tells whether the kernel killed a process of ours because memory ran out.

The control group counts such kills: ``oom_kill`` in ``memory.events`` (version 2) or ``memory.oom_control`` (version
1), those for want of the whole machine's memory included. A process that died of SIGKILL, not by our hand, while the
count rose, was one of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from launcher.hardware.host_memory import control_groups, read_text

_COUNTERS: Final = (("", "memory.events"), ("memory", "memory.oom_control"))
_NAME: Final = "oom_kill"


class KillCounter:
    """The count of the innermost control group that has one, from the moment that this object was made."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._path = _counter_file(root)
        self._seen = _count(self._path)

    def take_one(self) -> bool | None:
        """Tell whether there was a kill that nobody has taken yet, and take it; None where the kernel does not tell.

        Two processes may be killed at the same moment, and each of them takes one.
        """
        now = _count(self._path)
        if now is None or self._seen is None:
            return None
        if now <= self._seen:
            return False
        self._seen += 1
        return True


def _counter_file(root: Path) -> Path | None:
    for controller, name in _COUNTERS:
        for group in control_groups(root, controller):
            if _count(group / name) is not None:
                return group / name
    return None


def _count(path: Path | None) -> int | None:
    if path is None:
        return None
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == _NAME and value.strip().isdigit():
            return int(value)
    return None
