"""Gives memory back in another thread: for megabytes the kernel takes milliseconds, which the event loop has not."""

from __future__ import annotations

import contextlib
import mmap
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_closer: Final = ThreadPoolExecutor(1, thread_name_prefix="background-close")
"""Starts its thread when it is first needed."""


def close_in_background(memory: mmap.mmap) -> None:
    """Close a mapping soon. One of which a part is in use stays, and goes with that part."""
    # When the interpreter is ending no more work is taken, and all memory goes anyway.
    with contextlib.suppress(RuntimeError):
        _closer.submit(memory.close)
