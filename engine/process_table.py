"""What is known of other processes: children that run, whether one is coming to its end, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

PF_EXITING = 0x4
"""The flag of a process that is being ended, among those of ``/proc/PID/stat``; from ``linux/sched.h``."""
EXIT_INTERVAL_S = 0.05
_ENDED = frozenset("ZX")
_STATE, _FLAGS = 0, 6
"""Places in ``/proc/PID/stat`` after the name."""


async def exit_status(process: asyncio.subprocess.Process) -> int:
    """Return the status of a process once it has ended.

    ``process.wait()`` returns only when everybody who has inherited the process's output has closed it, too: a worker
    that it has left behind would hide its end.
    """
    while (status := process.returncode) is None:  # noqa: ASYNC110 - asyncio tells of nothing but the end of the output
        await asyncio.sleep(EXIT_INTERVAL_S)
    return status


def living_children(process: int) -> list[int]:
    """Return the children of a process that run; what has died stays a child until it is waited for."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        # A thread that ends meanwhile must not hide the children of the others.
        with contextlib.suppress(OSError):
            found += [int(child) for child in thread.read_text(encoding="ascii").split() if not _has_ended(int(child))]
    return found


def is_ending(process: int) -> bool:
    """Tell whether the kernel is ending a process or has ended it, which takes a while where all cores are busy."""
    fields = _stat(process)
    return not fields or fields[_STATE] in _ENDED or bool(int(fields[_FLAGS]) & PF_EXITING)


def kill_if(process: int, part: str) -> None:
    """Kill a process if it still runs and ``part`` is in its command line."""
    with contextlib.suppress(OSError):
        if part in Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace"):
            os.kill(process, signal.SIGKILL)


def _has_ended(process: int) -> bool:
    fields = _stat(process)
    return not fields or fields[_STATE] in _ENDED


def _stat(process: int) -> list[str]:
    """Return the fields after the name; none when there is no such process."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        return text.rpartition(")")[2].split()
    return []
