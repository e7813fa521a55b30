"""One writer per cache: a lock that the kernel keeps, and a lease for volumes that machines share without shared locks.

The rule: who holds the lock on ``writer.lock`` and finds no foreign lease in ``writer.json`` may write. The holder
renews its lease every few seconds, with its progress in it, which those who wait show. A lease of this machine whose
lock is free is a dead writer's, and is taken over at once. A lease of another machine is taken over when it has not
changed for ``Cache.lease_s`` by the waiter's own clock, so clocks need not agree. Should two ever write at once, they
write the same bytes to the same places; it costs bytes, never correctness.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self

from launcher.cache.store import Cache, make_folder, shared_mode, storage_error, write_atomically
from launcher.download.progress import DownloadState, FilePhase, FileState, Phase, Progress

_RENEW_S: Final = 2.0
_ASK_S: Final = 0.5
_SETTLE_S: Final = 1.0
_UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class WriterLock:
    """Held while the cache is written: ``with WriterLock(cache).acquire(progress) as lock``."""

    def __init__(self, cache: Cache, renew_s: float = _RENEW_S) -> None:
        self._cache = cache
        self._renew_s = renew_s
        self._path = cache.notes / "writer.lock"
        self._lease_path = cache.notes / "writer.json"
        self._token = secrets.token_hex(8)
        self._fd: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = DownloadState(Phase.RESOLVING)

    def acquire(self, progress: Progress) -> WriterLock:
        """Wait until this process may write, showing the other writer's progress.

        Raises:
            CacheError: the folder cannot be written.
        """
        seen: tuple[str, float] | None = None
        try:
            while True:
                lease = self._lease()
                if seen is None or seen[0] != _mark(lease):
                    seen = (_mark(lease), time.monotonic())
                is_stale = time.monotonic() - seen[1] >= self._cache.lease_s
                if self._try_lock():
                    is_ours = lease is None or is_stale or lease.get("machine") == _machine()
                    if is_ours and self._hold():
                        return self
                    self._unlock()
                elif self._is_unsupported and is_stale and self._hold():
                    return self
                progress.update(_as_waiting(lease))
                time.sleep(_ASK_S)
        except OSError as error:
            self._unlock()
            raise storage_error(error, self._path) from error
        except BaseException:  # whatever the progress raised
            self._unlock()
            raise

    def report(self, state: DownloadState) -> None:
        """Put this progress into the lease with the next renewal."""
        self._state = state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        lease = self._lease()
        if lease is not None and lease.get("token") == self._token:
            with contextlib.suppress(OSError):
                self._lease_path.unlink(missing_ok=True)
        self._unlock()

    _is_unsupported = False

    def _try_lock(self) -> bool:
        make_folder(self._path.parent)
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):
                os.fchmod(self._fd, shared_mode(self._path.parent) & 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            # No locks on this volume: the lease alone decides, also between processes of this machine.
            self._is_unsupported = True
            return self._lease() is None
        return True

    def _unlock(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _hold(self) -> bool:
        self._renew()
        if self._is_unsupported:
            # Two may have written their lease at the same moment; the last one counts, after both have looked again.
            time.sleep(_SETTLE_S)
            lease = self._lease()
            if lease is None or lease.get("token") != self._token:
                return False
        self._thread = threading.Thread(target=self._renew_loop, daemon=True, name="cache-lease")
        self._thread.start()
        return True

    def _renew_loop(self) -> None:
        while not self._stop.wait(self._renew_s):
            with contextlib.suppress(OSError):
                self._renew()

    def _renew(self) -> None:
        lease = {
            "token": self._token, "machine": _machine(), "host": socket.gethostname(), "pid": os.getpid(),
            "beat": time.time_ns(), "state": asdict(self._state),
        }  # fmt: skip
        write_atomically(self._lease_path, json.dumps(lease).encode())

    def _lease(self) -> dict[str, Any] | None:
        return read_lease(self._lease_path)


def read_lease(path: Path) -> dict[str, Any] | None:
    """Return who writes into a cache: ``host``, ``pid``, ``state`` and more; None if nobody does."""
    try:
        lease = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return lease if isinstance(lease, dict) else None


def _machine() -> str:
    """Return what tells this boot of this machine from all others; its containers share it, and its locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _mark(lease: dict[str, Any] | None) -> str:
    return f"{lease.get('token')} {lease.get('beat')}" if lease else ""


def _as_waiting(lease: dict[str, Any] | None) -> DownloadState:
    """Return the other writer's progress as the state of the one who waits."""
    if lease is None:
        return DownloadState(Phase.WAITING, note="waiting for another process that fills the cache")
    note = f"waiting for {lease.get('host')} (process {lease.get('pid')}), which fills the cache"
    try:
        data = dict(lease["state"])
        files = tuple(
            FileState(str(f["name"]), FilePhase(f["phase"]), int(f["bytes_done"]), f["bytes_total"])
            for f in data["files"]
        )
        return DownloadState(
            Phase.WAITING, int(data["bytes_done"]), data["bytes_total"], 0, data["rate"], data["eta_s"], files, note
        )
    except (KeyError, TypeError, ValueError):
        return DownloadState(Phase.WAITING, note=note)
