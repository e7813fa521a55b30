"""The launcher's own answers under TLS: from the first moment the port speaks what the API will speak."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from config.environment import load_settings
from config.errors import ConfigError
from config.server_tls import ServerTls
from config.settings_access import TlsSettings
from launcher.access import Access, access_warnings
from launcher.errors import ExitCode, LaunchError
from launcher.report import Reporter
from launcher.supervision.front import Front
from launcher.supervision.listener import open_listener
from launcher.supervision.phases import Phases
from launcher.supervision.readiness import LIVE, READY, HealthProbe
from launcher.supervision.session import Prepared, Session
from launcher.workspace import Workspace
from tests.conftest import COMMAND, StartProduct
from tests.fakes.processes import TLS_DATA, free_port, wait_until

DEADLINE_S = 60


class Fronted:
    """A front with certificates in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.use("server")
        loaded = ServerTls.load(
            TlsSettings(mode="tls", certs_path=folder / "tls.crt", key_path=folder / "tls.key"),
        )
        assert loaded is not None
        self.tls = loaded

    def use(self, name: str) -> None:
        shutil.copy(TLS_DATA / f"{name}.key", self.folder / "tls.key")
        shutil.copy(TLS_DATA / f"{name}.pem", self.folder / "tls.crt")

    def ask(self, data: bytes) -> bytes:
        """Send a request over TLS and return everything that comes back."""
        context = ssl.create_default_context(cafile=str(TLS_DATA / "ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            encrypted.sendall(data)
            response = b""
            while b"}}" not in response and b'"live"}' not in response and (part := encrypted.recv(65_536)):
                response += part
        return response

    def shown_name(self) -> str:
        pem = ssl.get_server_certificate(("127.0.0.1", self.port), timeout=DEADLINE_S)
        names = [name for name in ("server", "renewed") if pem.strip() in (TLS_DATA / f"{name}.pem").read_text()]
        return names[0]


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[Fronted]:
    running = Fronted(tmp_path)
    started, stop = threading.Event(), threading.Event()
    with open_listener("127.0.0.1", 0) as listener:
        running.port = listener.getsockname()[1]

        async def serve() -> None:
            front = Front(listener, lambda: {"phase": "downloading"}, running.tls)
            front.resume()
            started.set()
            await asyncio.to_thread(stop.wait)
            await front.finish()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        started.wait(DEADLINE_S)
        yield running
        stop.set()
        thread.join(DEADLINE_S)


def test_health_is_told_over_tls_before_the_api_runs(fronted: Fronted) -> None:
    """Live, not ready, and come again; whether a key is sent makes no difference, for nothing else is told."""
    assert fronted.ask(b"GET /v1/health/live HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    for head in (b"GET /v1/models HTTP/1.1\r\n\r\n", b"GET /v1/models HTTP/1.1\r\nauthorization: Bearer x\r\n\r\n"):
        answer_head, _, body = fronted.ask(head).partition(b"\r\n\r\n")
        assert answer_head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 2\r\nretry-after-ms: 2000" in answer_head
        assert json.loads(body)["error"] == {
            "message": "The service is not ready: downloading.",
            "type": "service_unavailable",
            "param": None,
            "code": "not_ready",
        }


def test_probe_of_the_launcher_speaks_tls(fronted: Fronted) -> None:
    """It needs no authority: the answer comes from a process of its own, and nothing secret is sent."""
    probe = HealthProbe("127.0.0.1", fronted.port, encrypted=True)

    assert asyncio.run(probe.is_ok(LIVE, DEADLINE_S))
    assert not asyncio.run(probe.is_ok(READY, DEADLINE_S))
    assert probe.url == f"https://127.0.0.1:{fronted.port}"


@pytest.mark.parametrize("data", [b"", b"GET /v1/health/live HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"])
def test_whoever_speaks_no_tls_does_no_harm(fronted: Fronted, data: bytes) -> None:
    """The connection ends, and the next one is answered."""
    with (
        socket.create_connection(("127.0.0.1", fronted.port), timeout=DEADLINE_S) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(data)
        with contextlib.suppress(OSError):  # the server may have hung up already
            connection.shutdown(socket.SHUT_WR)
        assert b"HTTP" not in connection.recv(1000)

    assert fronted.ask(b"GET /v1/health/live HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_renewed_certificate_is_used_at_once(fronted: Fronted) -> None:
    """A long download may outlive a certificate."""
    assert fronted.shown_name() == "server"
    fronted.use("renewed")

    wait_until(lambda: fronted.shown_name() == "renewed", what="the renewed certificate")


def test_front_of_a_closed_server_tells_figures_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With keys the launcher's own answers hold no sentence that may name a machine."""
    (tmp_path / "keys.txt").write_text(f"{'0' * 64} nobody\n")
    environ = {"NIM_SERVER_HOST": "127.0.0.1", "NIM_SERVER_PORT": str(free_port())}
    loaded = load_settings(environ={**environ, "NIM_API_KEY_HASHES_PATH": str(tmp_path / "keys.txt")})
    found: list[dict[str, object]] = []

    def prepare(_: Workspace, phases: Phases) -> Prepared:
        phases.progress("waiting", 1, 2, note="waiting for host-7")
        found.append(requests.get(f"http://127.0.0.1:{environ['NIM_SERVER_PORT']}{READY}", timeout=DEADLINE_S).json())
        raise LaunchError(ExitCode.DISK_FULL, "the end of the test")

    with pytest.raises(LaunchError, match="the end of the test"):
        Session.of(loaded, Reporter(jsonl=True)).run(prepare)

    assert (found[0]["phase"], found[0]["bytes_done"]) == ("waiting", 1)
    assert "host-7" not in json.dumps(found)
    assert "host-7" in capsys.readouterr().out


def test_what_would_be_missed_is_told() -> None:
    """Certificates without the mode that uses them, and keys that can be guessed; no key is shown."""
    environ = {"NIM_SSL_CERTS_PATH": "/c", "NIM_SSL_CA_CERTS_PATH": "/a", "NIM_API_KEYS": f"{'x' * 16},guess-me"}
    lines = list(access_warnings(load_settings(environ=environ).settings))

    assert [line.split()[0] for line in lines] == ["NIM_SSL_CERTS_PATH", "NIM_SSL_CA_CERTS_PATH", "NIM_API_KEYS"]
    assert "guess-me" not in "".join(lines)
    strict = load_settings(environ={**environ, "NIM_STRICT_CONFIG": "1", "NIM_JSONL_LOGGING": "1"}).settings
    with pytest.raises(ConfigError, match="NIM_STRICT_CONFIG") as caught:
        Access.of(strict)
    assert caught.value.jsonl


@pytest.mark.slow
def test_product_speaks_tls_from_the_start_and_asks_for_keys(start_product: StartProduct) -> None:
    """The launcher, its probe, the API and the commands agree on TLS and keys; no process is told a key."""
    key = "key-of-the-whole-product-0123456789"
    variables = {
        "NIM_SSL_MODE": "tls",
        "NIM_SSL_CERTS_PATH": str(TLS_DATA / "server.pem"),
        "NIM_SSL_KEY_PATH": str(TLS_DATA / "server.key"),
        "NIM_API_KEYS": key,
    }
    with start_product(**variables) as product:
        assert "ready on https://" in product.log()
        for package in ("api", "engine"):
            for pid in product.children(package):
                assert key.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        here = {**os.environ, **variables, "NIM_SERVER_PORT": product.base_url.rpartition(":")[2]}
        asked = _run(here, "chat", "--max-tokens", "4", "Hello")
        assert asked.returncode == 0, asked.stderr
        assert _run(here, "bench", "-c", "1", "-n", "1", "-i", "4", "-o", "4", "--warmup", "0").returncode == 0
        wait_until(lambda: _run(here, "health", "--ready").returncode == 0, what="ready")
        refused = _run({**here, "NIM_API_KEYS": "another-key-0123456789"}, "chat", "Hello")
        assert refused.returncode == ExitCode.BAD_SETTINGS
        assert "set NIM_API_KEY" in refused.stderr
    assert key not in product.log()


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, input="", timeout=250, check=False)
