"""The port is open from the first second, and stays open while the API process takes it over or is started again."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import ExitCode, LaunchError
from launcher.report import Reporter
from launcher.supervision.front import Front, respond
from launcher.supervision.listener import open_listener
from launcher.supervision.phases import Phases
from launcher.supervision.process import Command
from launcher.supervision.readiness import LIVE, HealthProbe
from launcher.supervision.session import Prepared, Session
from launcher.supervision.supervisor import Limits
from launcher.workspace import Workspace
from tests.fakes import health_server
from tests.fakes.processes import free_port, wait_until

LIMITS = Limits(start_timeout_s=100, grace_s=100, max_restarts=3)


def _get(port: int, path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else {}, dict(response.getheaders())
    finally:
        connection.close()


@pytest.fixture
def fronted() -> Iterator[tuple[int, dict[str, Any]]]:
    """A front that answers on a port, with the status that it tells."""
    status: dict[str, Any] = {"phase": "downloading", "bytes_done": 10, "bytes_total": 40}
    started, stop = threading.Event(), threading.Event()
    with open_listener("127.0.0.1", 0) as listener:

        async def serve() -> None:
            front = Front(listener, lambda: status)
            front.resume()
            started.set()
            await asyncio.to_thread(stop.wait)
            await front.finish()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        started.wait(100)
        yield listener.getsockname()[1], status
        stop.set()
        thread.join(100)


def test_marker_is_there_for_as_long_as_the_front_may_answer(tmp_path: Path) -> None:
    """By it the API knows that a client that it tells ready could still meet the front."""
    marker = tmp_path / "front"

    class Deaf(HealthProbe):
        """Hears the API at its second question."""

        asked: ClassVar[list[bool]] = []

        async def is_ok(self, path: str, timeout_s: float = 1.0) -> bool:
            self.asked.append(marker.exists())
            return path == LIVE and timeout_s > 0 and len(self.asked) > 1

    async def hand_over() -> list[bool]:
        with open_listener("127.0.0.1", 0) as listener:
            front = Front(listener, lambda: {"phase": "loading"}, marker=marker)
            seen = [marker.exists()]
            front.resume()
            seen.append(marker.exists())
            await front.hand_over(Deaf("127.0.0.1", 0))
            seen.append(marker.exists())
            front.resume()
            seen.append(marker.exists())
            await front.finish()
            return [*seen, marker.exists()]

    assert asyncio.run(hand_over()) == [False, True, False, True, False]
    assert Deaf.asked == [True, True]


def test_live_is_200_before_the_api_runs(fronted: tuple[int, dict[str, Any]]) -> None:
    """Whoever restarts servers that do not live must not restart one that downloads."""
    status, body, _ = _get(fronted[0], "/v1/health/live")

    assert status == 200
    assert body == {"object": "health.response", "message": "live", "status": "live"}


def test_ready_is_503_with_phase_and_progress(fronted: tuple[int, dict[str, Any]]) -> None:
    """The body tells what is going on, how many bytes are done, and how many there are."""
    status, body, headers = _get(fronted[0], "/v1/health/ready?verbose=1")

    assert status == 503
    assert (body["phase"], body["bytes_done"], body["bytes_total"]) == ("downloading", 10, 40)
    assert body["status"] == "not_ready"
    assert body["error"]["code"] == "not_ready"
    assert headers["retry-after"] == "2"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/", "/v1/models"])
def test_everything_else_is_told_to_come_again(fronted: tuple[int, dict[str, Any]], path: str) -> None:
    """In the form of an OpenAI-style error."""
    status, body, headers = _get(fronted[0], path)

    assert status == 503
    assert body["error"]["type"] == "service_unavailable"
    assert headers["retry-after"] == "2"


@pytest.mark.parametrize("data", [b"", b"\r\n", b"hello", b"\x16\x03\x01" + bytes(200), b"GET /" + b"a" * 70_000])
def test_garbage_does_no_harm(fronted: tuple[int, dict[str, Any]], data: bytes) -> None:
    """Whoever speaks something else than HTTP is cut off, and the next one is answered."""
    with socket.create_connection(("127.0.0.1", fronted[0]), timeout=60) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(100)
        except TimeoutError:
            raise
        except OSError as cut_off:
            assert cut_off.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)

    assert _get(fronted[0], "/v1/health/live")[0] == 200


def test_large_body_does_not_spoil_the_answer(fronted: tuple[int, dict[str, Any]]) -> None:
    """A client that sends a picture gets the 503 and not a reset connection."""
    connection = http.client.HTTPConnection("127.0.0.1", fronted[0], timeout=60)
    connection.request("POST", "/v1/chat/completions", body=b"x" * 300_000)

    assert connection.getresponse().status == 503
    connection.close()


@given(st.binary(max_size=80))
def test_any_head_gets_a_whole_response(head: bytes) -> None:
    """The answer is always one complete HTTP response."""
    answer_head, _, body = respond(head, {"phase": "loading"}).partition(b"\r\n\r\n")

    assert answer_head.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 200 "))
    assert json.loads(body) if head.split(b"\r\n")[0].split(b" ")[0] != b"HEAD" else body == b""


@pytest.mark.parametrize("path", [b"/v1/health/live", b"/v1/models"])
def test_request_ids_are_echoed(path: bytes) -> None:
    """The front takes over a harmless id of the caller's, as the API does, and gives one to every other request."""
    head = b"GET %s HTTP/1.1\r\nhost: x\r\n%s\r\n"

    assert b"\r\nx-request-id: abc-1\r\n" in respond(head % (path, b"X-Request-ID: abc-1\r\n"), {})
    assert b"x-request-id: a b" not in respond(head % (path, b"X-Request-ID: a b\r\n"), {})
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}\r\n", respond(head % (path, b""), {}))


def test_taken_port_is_refused() -> None:
    """The port and the variable are named."""
    with open_listener("127.0.0.1", 0) as holder, pytest.raises(LaunchError) as caught:
        open_listener("127.0.0.1", holder.getsockname()[1])

    assert caught.value.code is ExitCode.PORT_UNAVAILABLE
    assert "NIM_SERVER_PORT" in caught.value.remedy


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_foreign_address_is_refused(host: str) -> None:
    """The variable is named."""
    with pytest.raises(LaunchError) as caught:
        open_listener(host, 0)

    assert caught.value.code is ExitCode.BAD_SETTINGS
    assert "NIM_SERVER_HOST" in caught.value.message


class Run:
    """A session with stand-ins for the API and the engine, run in the main thread, watched from another."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.capsys = capsys
        self.failure: BaseException | None = None
        self.has_ended = False

    def go(self, watch: Callable[[], None], prepare: Callable[[Workspace, Phases], Prepared] | None = None) -> None:
        """Run until ``watch``, which runs beside it, has sent a signal."""
        session = Session("127.0.0.1", self.port, LIMITS, Reporter(jsonl=True), jsonl=True)
        watcher = threading.Thread(target=self._watch, args=(watch,))
        watcher.start()
        try:
            session.run(prepare or self.prepare)
        finally:
            # A run that ends by itself must not leave the signal to the tests' own process.
            before = signal.signal(signal.SIGTERM, lambda *_: None)
            self.has_ended = True
            watcher.join(100)
            signal.signal(signal.SIGTERM, before)
        if self.failure is not None:
            raise self.failure

    def prepare(self, workspace: Workspace, _: Phases) -> Prepared:
        (workspace.folder / "port").write_text(str(self.port))
        assert workspace.listen_fd is not None
        (workspace.folder / "listen_fd").write_text(str(workspace.listen_fd))
        (self.folder / "workspace").write_text(str(workspace.folder))
        return Prepared(
            self._command(workspace, "api", (workspace.listen_fd,)), self._command(workspace, "engine"), "model"
        )

    def ready(self) -> bool:
        return self.status("/v1/health/ready") == 200

    def told_ready(self) -> bool:
        """Tell whether the launcher knows that the engine is ready."""
        name = self.folder / "workspace"
        if not name.exists():
            return False
        return '"ready"' in (Path(name.read_text()) / "status.json").read_text()

    def status(self, path: str) -> int:
        """Return a status, 0 when the connection is refused."""
        try:
            return _get(self.port, path)[0]
        except ConnectionRefusedError:
            return 0
        except (OSError, http.client.HTTPException):
            return -1

    def _command(self, workspace: Workspace, role: str, inherited: tuple[int, ...] = ()) -> Command:
        arguments = (sys.executable, health_server.__file__, role, str(workspace.folder))
        return Command(role, arguments, dict(os.environ), inherited)

    def _watch(self, watch: Callable[[], None]) -> None:
        try:
            watch()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.failure = error
        finally:
            if not self.has_ended:
                os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path, capsys)


def test_port_is_never_closed_during_a_start(run: Run) -> None:
    """From the first answer until ready, no connection is refused and live is always 200."""
    seen: list[int] = []
    phases: list[str] = []
    downloaded = threading.Event()

    def watch() -> None:
        wait_until(lambda: run.status("/v1/health/live") == 200, what="live")
        wait_until(lambda: _get(run.port, "/v1/health/ready")[1].get("phase") == "downloading", what="download")
        phases.append(json.dumps(_get(run.port, "/v1/health/ready")[1]))
        downloaded.set()
        seen.append(run.status("/v1/health/live"))
        while not run.ready():
            seen.append(run.status("/v1/health/live"))
        wait_until(run.told_ready, what="phase ready")

    def prepare(workspace: Workspace, phases: Phases) -> Prepared:
        phases.progress("downloading", 1, 4, eta_seconds=3)
        downloaded.wait(100)
        return run.prepare(workspace, phases)

    run.go(watch, prepare)

    assert set(seen) == {200}
    assert '"eta_seconds": 3' in phases[0]
    events = [json.loads(line) for line in run.capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events][-1] == "stopped"
    assert {"starting", "downloading", "loading", "ready", "stopping"} <= {event.get("phase") for event in events}


def test_port_stays_open_while_the_api_is_started_again(run: Run) -> None:
    """After a crash of the API connections wait instead of being refused, and then they are answered."""
    seen: list[int] = []

    def watch() -> None:
        wait_until(run.told_ready, what="ready")
        folder = Path((run.folder / "workspace").read_text())
        os.kill(_api_pid(folder), signal.SIGKILL)
        seen.extend(run.status("/v1/health/live") for _ in range(5))
        wait_until(run.ready, what="ready again")

    run.go(watch)

    assert 0 not in seen
    assert seen[-1] == 200


def _api_pid(folder: Path) -> int:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"api" in words and str(folder).encode() in words:
                return int(process.name)
    raise AssertionError("no API process")


def test_signal_ends_a_download_at_once(run: Run) -> None:
    """SIGTERM before anything runs is a clean stop that does not wait for the preparation."""
    never = threading.Event()

    def prepare(_: Workspace, phases: Phases) -> Prepared:
        phases.progress("downloading", 1, 4)
        never.wait(60)
        raise AssertionError("waited for")

    run.go(lambda: wait_until(lambda: run.status("/v1/health/live") == 200, what="live"), prepare)

    never.set()
    assert '"stopped"' in run.capsys.readouterr().out


def test_failed_preparation_ends_the_run_with_its_error(run: Run) -> None:
    """What the download or the plan says is what the launcher says."""
    session = Session("127.0.0.1", run.port, LIMITS, Reporter(jsonl=True))

    def prepare(_: Workspace, __: Phases) -> Prepared:
        raise LaunchError(ExitCode.DISK_FULL, "no room")

    with pytest.raises(LaunchError) as caught:
        session.run(prepare)

    assert caught.value.code is ExitCode.DISK_FULL
