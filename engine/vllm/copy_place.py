"""A temporary folder that is known to be in use: what a killed process has left behind, the next one removes."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "g4nim-adapters-"
LOCK: Final = "lock"


class CopyPlace:
    """A new folder, locked as long as it is open. Locks end with their process, in whatever container it ran."""

    def __init__(self) -> None:
        """Make it, and remove those that nobody holds any more.

        Raises:
            OSError: there is no temporary folder that can be written to.
        """
        for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _remove_abandoned(left)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = (self.path / LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Delete it with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_abandoned(folder: Path) -> None:
    # Without a lock it is just being made; one that cannot be opened is somebody else's.
    with contextlib.suppress(OSError), (folder / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
