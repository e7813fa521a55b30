"""``gemma4-nim health``, the container's health check: it finds the server by its settings, and its status tells."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from launcher.commands.running_server import find_server
from launcher.errors import ExitCode
from tests.conftest import Product
from tests.fakes import console
from tests.fakes.processes import TLS_DATA, free_port, wait_until


class _Loading(BaseHTTPRequestHandler):
    """A server that is alive and still loads its model."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v1/health/live" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def _loading_server(context: ssl.SSLContext | None = None) -> Iterator[dict[str, str]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Loading) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield {"NIM_SERVER_PORT": str(server.server_address[1])}
        finally:
            server.shutdown()
            thread.join()


def test_a_ready_server_is_alive_and_ready(product: Product) -> None:
    """The port is that of the settings; a wildcard address is asked on this machine."""
    variables = {"NIM_SERVER_PORT": product.base_url.rpartition(":")[2], "NIM_SERVER_HOST": "0.0.0.0"}
    answers: list[str] = []

    def is_ready() -> bool:
        done = console.run("gemma4-nim", "health", "--ready", variables=variables)
        answers.append(done.stdout)
        return done.returncode == ExitCode.OK

    # Where all cores are busy the engine may take longer to answer than a probe waits.
    wait_until(is_ready, what="ready")
    assert answers[-1] == "ready\n"


def test_a_server_that_loads_is_alive_and_not_ready() -> None:
    """Nobody kills a container that reads its weights; the status of ``--ready`` is that of a failed network."""
    with _loading_server() as variables:
        alive = console.run("gemma4-nim", "health", variables=variables)
        ready = console.run("gemma4-nim", "health", "--ready", variables=variables)

    assert (alive.returncode, alive.stdout) == (ExitCode.OK, "live\n"), alive.stderr
    console.fails_well(ready, ExitCode.DOWNLOAD_FAILED, "/v1/health/ready answers with status 503")


def test_tls_is_asked_with_tls() -> None:
    """The certificate is for the name that others use, so on this machine it is not held to any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS_DATA / "server.pem", TLS_DATA / "server.key")
    files = {"NIM_SSL_CERTS_PATH": str(TLS_DATA / "server.pem"), "NIM_SSL_KEY_PATH": str(TLS_DATA / "server.key")}
    with _loading_server(context) as variables:
        done = console.run("gemma4-nim", "health", variables=variables | files | {"NIM_SSL_MODE": "tls"})

    assert (done.returncode, done.stdout) == (ExitCode.OK, "live\n"), done.stderr


def test_no_server_is_not_alive() -> None:
    """The line says where nobody answered."""
    port = str(free_port())
    done = console.run("gemma4-nim", "health", variables={"NIM_SERVER_PORT": port})

    console.fails_well(done, ExitCode.DOWNLOAD_FAILED, f"nobody answers at 127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("host", "address"),
    [("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::", "[::1]")],
)
def test_this_machines_server_is_looked_for_where_it_listens(
    host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``chat`` and ``bench`` without ``--url`` go to the host of the settings, not always to 127.0.0.1."""
    monkeypatch.setenv("NIM_SERVER_HOST", host)
    monkeypatch.setenv("NIM_SERVER_PORT", "9123")

    assert find_server(None, None).url == f"http://{address}:9123"
