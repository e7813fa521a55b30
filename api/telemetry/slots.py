"""Which files of the shared folder this process counts in: a slot that it holds for as long as it lives.

The library names files by process id, so that every crash would leave some behind. A slot's files are taken over by the
process that is started again: their number is that of the processes, and what was counted goes on.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

from prometheus_client import values


@dataclass(frozen=True, slots=True)
class Slot:
    """A number that no other living process has in this folder; the open file holds it."""

    number: int
    lock: IO[bytes]


def take_slot(folder: Path) -> Slot:
    """Return the lowest slot that is free.

    Raises:
        OSError: the folder cannot be written.
    """
    return next(_free_slots(folder))


def _free_slots(folder: Path) -> Iterator[Slot]:
    for number in count(1):
        lock = (folder / f"slot-{number}.lock").open("wb")
        try:
            # The kernel lets go of it when the process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            yield Slot(number, lock)


def count_in(slot: Slot) -> None:
    """Let the library count in the files of a slot. Must come before the first metric is made."""
    values.ValueClass = values.MultiProcessValue(lambda: slot.number)  # type: ignore[no-untyped-call]
