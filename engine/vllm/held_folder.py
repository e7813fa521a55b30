"""A temporary folder that is known to be in use: what a killed process has left behind, the next one removes."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import Final

LOCK: Final = "lock"


class HeldFolder:
    """A new folder, locked as long as it is open. Locks end with their process, in whatever container it ran."""

    def __init__(self, prefix: str) -> None:
        """Make it, and remove those of the same prefix that nobody holds any more.

        Raises:
            OSError: there is no temporary folder that can be written to.
        """
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            _remove_abandoned(left)
        while True:
            self._folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
            self.path = Path(self._folder.name)
            self._lock = (self.path / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if (self.path / LOCK).exists():  # nobody took it for an abandoned one before it was locked
                return
            self.close()

    def close(self) -> None:
        """Delete it with everything in it."""
        self._folder.cleanup()
        self._lock.close()


def _remove_abandoned(folder: Path) -> None:
    # Without a lock it is just being made; one that cannot be opened is somebody else's.
    with contextlib.suppress(OSError), (folder / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
