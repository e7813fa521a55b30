"""One writer per cache: the others wait and show its progress, and take over from the dead by rule."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.cache.lock import WriterLock, read_lease
from launcher.cache.store import Cache, write_atomically
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.download.progress import DownloadState, FilePhase, FileState, Phase, Silent
from tests.fakes.processes import wait_until
from tests.launcher.download.conftest import PIECE, Seen, access, content
from tests.launcher.download.servers import Answer, FileServer, Request

ROOT = Path(__file__).parents[2]
BODY = content(30 * PIECE, 11)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", lease_s=0.8)


class Clock:
    """The time of those who wait for the lock: it passes when they sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep, time_ns=time.time_ns)
        monkeypatch.setattr("launcher.cache.lock.time", clock)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def lease_path(cache: Cache) -> Path:
    return cache.notes / "writer.json"


def test_the_second_process_waits_and_shows_the_first_ones_progress(cache: Cache) -> None:
    """Both ask for the same file; it is fetched once, and both have it."""
    released = threading.Event()

    def hold(request: Request, answer: Answer) -> Answer:
        if request.start >= 15 * PIECE:
            answer.pause = (0, released)
        return answer

    code = (
        "import sys; from pathlib import Path; from launcher.cache.store import Cache;"
        "from launcher.download.fetch import FileRequest, fetch_workspace;"
        "from tests.launcher.download.conftest import access;"
        "fetch_workspace([FileRequest('f', sys.argv[2])], Cache(Path(sys.argv[1])), access())"
    )
    with FileServer({"/f": BODY}) as server:
        server.faults.append(hold)
        words = [sys.executable, "-c", code, str(cache.root), f"{server.url}/f"]
        first = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            wait_until(lambda: (read_lease(lease_path(cache)) or {}).get("state", {}).get("bytes_done", 0) > 0)
            seen = Seen(lambda state: released.set() if state.phase is Phase.WAITING and state.bytes_done else None)
            folder = fetch_workspace([FileRequest("f", f"{server.url}/f")], cache, access(), seen)
            assert first.wait(100) == 0
        finally:
            first.kill()
            first.wait()

    assert (folder / "f").read_bytes() == BODY
    waiting = [state for state in seen.states if state.phase is Phase.WAITING and state.bytes_done]
    assert f"process {first.pid}" in waiting[0].note
    assert waiting[0].bytes_total == len(BODY)
    assert waiting[0].files[0].name == "f"
    assert server.settled() <= len(BODY) + PIECE
    assert not lease_path(cache).exists()


def test_a_writer_that_was_killed_on_this_machine_is_replaced_at_once(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel freed its lock; nobody waits for its lease to run out."""
    code = (
        "import sys, time; from pathlib import Path; from launcher.cache.store import Cache;"
        "from launcher.cache.lock import WriterLock; from launcher.download.progress import Silent;"
        "WriterLock(Cache(Path(sys.argv[1]))).acquire(Silent()); print('held', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(cache.root)]
    holder = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        holder.stdout.readline()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lease_path(cache).exists()

    clock = Clock(monkeypatch)
    with WriterLock(Cache(cache.root, lease_s=1000)).acquire(Silent()):
        assert clock.now < 5


def test_a_dead_writer_on_another_machine_is_replaced_when_its_lease_has_not_changed_for_long(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the waiter's own clock: the time in the lease may be of any clock."""
    cache.notes.mkdir(parents=True)
    lease_path(cache).write_text(
        json.dumps({"token": "x", "machine": "other", "host": "gone", "pid": 7, "beat": 2**62})
    )
    seen = Seen()
    clock = Clock(monkeypatch)

    with WriterLock(cache).acquire(seen):
        assert clock.now >= cache.lease_s
    assert seen.states[0].note == "waiting for gone (process 7), which fills the cache"


def test_a_living_writer_on_another_machine_is_waited_for(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease changes, so it is not taken over however long it takes; when it goes, the next one writes."""
    cache.notes.mkdir(parents=True)
    clock = Clock(monkeypatch)

    def live(_: object = None) -> None:
        if clock.now > 3 * cache.lease_s:
            lease_path(cache).unlink()
            return
        lease = {"token": "x", "machine": "other", "host": "far", "pid": 7, "beat": clock.now}
        write_atomically(lease_path(cache), json.dumps(lease).encode())

    live()
    with WriterLock(cache).acquire(Seen(live)):
        assert clock.now > 3 * cache.lease_s


def test_a_volume_without_locks_has_one_writer_too(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the lease alone decides."""

    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr("launcher.cache.lock._SETTLE_S", 0.05)
    order: list[str] = []
    first = WriterLock(cache, renew_s=0.1).acquire(Silent())
    seen = Seen(lambda _: order.append("waits"))
    patient = WriterLock(Cache(cache.root, lease_s=1000))
    second = threading.Thread(target=lambda: order.append("writes") if patient.acquire(seen) else None)
    with first:
        second.start()
        wait_until(lambda: len(order) > 1)
        assert "writes" not in order
    second.join(100)

    assert order[-1] == "writes"


def test_the_lease_carries_the_progress_and_goes_with_its_holder(cache: Cache) -> None:
    """Renewed in the background, removed at the end."""
    file = FileState("a", FilePhase.DOWNLOADING, 5, 10)
    with WriterLock(cache, renew_s=0.05).acquire(Silent()) as lock:
        lock.report(DownloadState(Phase.DOWNLOADING, 5, 10, 5, 1.0, 5.0, (file,)))
        wait_until(lambda: (read_lease(lease_path(cache)) or {}).get("state", {}).get("bytes_done") == 5)

    assert read_lease(lease_path(cache)) is None


def test_a_lease_of_nonsense_is_no_obstacle(cache: Cache) -> None:
    """A crash may leave half a file."""
    cache.notes.mkdir(parents=True)
    lease_path(cache).write_text('{"token": ')

    with WriterLock(cache).acquire(Silent()):
        assert read_lease(lease_path(cache)) is not None
