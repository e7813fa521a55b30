"""Gives memory back in another thread: for megabytes the kernel takes milliseconds, which the event loop has not."""

from __future__ import annotations

import contextlib
import mmap
import threading
from queue import SimpleQueue
from typing import Final

# A destructor may run wherever memory is asked for, also inside a lock that its own thread holds. To put something into
# this queue takes none.
_waiting: Final[SimpleQueue[mmap.mmap]] = SimpleQueue()
_start: Final = threading.Lock()
_started = threading.Event()


def prepare() -> None:
    """Start the thread, once; to be called where the memory is made, not in its destructor."""
    if _started.is_set():
        return
    with _start:
        if not _started.is_set():
            threading.Thread(target=_close_all, name="background-close", daemon=True).start()
            _started.set()


def close_in_background(memory: mmap.mmap) -> None:
    """Close a mapping soon; safe in a destructor. One of which a part is in use stays, and goes with that part."""
    _waiting.put(memory)


def _close_all() -> None:
    while True:
        with contextlib.suppress(BufferError):
            _waiting.get().close()
