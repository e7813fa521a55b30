"""TLS of a real server: who gets through the handshake, what a client certificate opens, renewal while it serves."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from config.errors import ConfigError
from config.server_tls import ServerTls
from config.settings_access import TlsSettings
from engine.core import EngineDelta
from tests.api.conftest import MODEL, ScriptedServer, start_scripted_server
from tests.api.guarded import DEADLINE_S, check_error, connect, head, post, send
from tests.fakes.processes import TLS_DATA, wait_until

AUTHORITY = str(TLS_DATA / "ca.pem")
CLIENT = (str(TLS_DATA / "client.pem"), str(TLS_DATA / "client.key"))
STRANGER = (str(TLS_DATA / "stranger.pem"), str(TLS_DATA / "stranger.key"))
ASK: list[Any] = [{"role": "user", "content": "Hi"}]


@dataclass
class TlsServer:
    """A server that wants client certificates, and the folder whose files it reads."""

    server: ScriptedServer
    folder: Path
    stalled: socket.socket
    """A connection on which no handshake was begun, open since the start."""

    def renew(self, name: str, key: str | None = None) -> None:
        """Exchange certificate and key in one step, as Kubernetes does: a link of the folder leads elsewhere."""
        place = self.folder / f"..{len(list(self.folder.iterdir()))}"
        place.mkdir()
        shutil.copy(TLS_DATA / f"{name}.pem", place / "tls.crt")
        shutil.copy(TLS_DATA / f"{key or name}.key", place / "tls.key")
        link = self.folder / "..next"
        link.symlink_to(place.name)
        link.replace(self.folder / "..data")

    def shown_name(self) -> str:
        """Return the name in the certificate that a new connection is shown."""
        with connect(self.server, client_context()) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            subject: Any = client.socket.getpeercert()
            return str(subject["subject"][0][0][1])


def client_context(certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
    """Return what a client connects with."""
    context = ssl.create_default_context(cafile=AUTHORITY)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


@contextmanager
def started(folder: Path, **variables: str) -> Iterator[TlsServer]:
    """Run a server on files of its own, reached by links."""
    files = folder / "files"
    files.mkdir()
    running = TlsServer.__new__(TlsServer)
    running.folder = files
    running.renew("server")
    for name in ("tls.crt", "tls.key"):
        (files / name).symlink_to(f"..data/{name}")
    settings = {
        "NIM_SSL_MODE": "MTLS",
        "NIM_SSL_CERTS_PATH": str(files / "tls.crt"),
        "NIM_SSL_KEY_PATH": str(files / "tls.key"),
        "NIM_SSL_CA_CERTS_PATH": AUTHORITY,
        "NIM_HEADER_TIMEOUT_SECONDS": "8",
        "NIM_METRICS_PUBLIC": "1",
        **variables,
    }
    with start_scripted_server(folder, settings) as server:
        running.server = server
        host, port = server.base_url.rpartition("//")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as running.stalled:
            yield running


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Start one server for all tests of this module."""
    with started(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
def tls(tls_server: TlsServer) -> TlsServer:
    """Return it with a fresh script."""
    tls_server.server.reply("Hi<turn|>")
    return tls_server


def test_sdk_talks_over_https_with_a_certificate(tls: TlsServer) -> None:
    """Whole and streamed."""
    with openai.DefaultHttpxClient(verify=client_context(CLIENT)) as http_client:
        client = openai.OpenAI(
            base_url=f"{tls.server.base_url}/v1", api_key="unused", max_retries=0, timeout=60, http_client=http_client
        )

        assert client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content == "Hi"
        parts = client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "Hi"


def test_client_without_a_certificate_reaches_health_only(tls: TlsServer) -> None:
    """Kubelets have none; everything else is refused before any route."""
    context = client_context()

    assert send(tls.server, head("GET", "/v1/health/live"), context)[0] == 200
    wait_until(lambda: send(tls.server, head("GET", "/v1/health/ready"), context)[0] == 200, what="ready")
    for data in (head("GET", "/v1/models"), head("GET", "//v1/health/live"), head("OPTIONS", "/x"), post(b"{}")):
        check_error(send(tls.server, data, context), 403, "client_certificate_required")


def test_metrics_are_open_by_choice(tls: TlsServer) -> None:
    """For scrapers that have neither key nor certificate; again only under their exact names."""
    for target, status in (("/metrics", 200), ("/v1/metrics", 200), ("//metrics", 403), ("/metrics/", 403)):
        assert send(tls.server, head("GET", target), client_context())[0] == status


def test_certificate_of_another_authority_is_refused_in_the_handshake(tls: TlsServer) -> None:
    """Not even health answers."""
    with pytest.raises((requests.ConnectionError, OSError)):
        requests.get(f"{tls.server.base_url}/v1/health/live", verify=AUTHORITY, cert=STRANGER, timeout=DEADLINE_S)


def test_old_versions_are_refused(tls: TlsServer) -> None:
    """1.2 and 1.3 are spoken, nothing before."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(CLIENT)
        context.minimum_version = context.maximum_version = version
        assert send(tls.server, head("GET", "/v1/models"), context)[0] == 200
    old = client_context(CLIENT)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # Python would rather not speak them, either.
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        send(tls.server, head("GET", "/v1/models"), old)


def test_plain_http_gets_no_answer(tls: TlsServer) -> None:
    """And whoever speaks TLS is served as before."""
    with connect(tls.server) as client:
        client.send(head("GET", "/v1/health/live"))
        assert b"HTTP" not in client.rest()

    assert send(tls.server, head("GET", "/v1/models"), client_context(CLIENT))[0] == 200


@pytest.mark.slow
def test_handshake_has_a_deadline(tls: TlsServer) -> None:
    """A connection on which nothing is said is closed."""
    with contextlib.suppress(ConnectionError):
        assert tls.stalled.recv(100) == b""


def test_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(tls: TlsServer) -> None:
    """A stream that runs during the renewal ends well; files that do not fit together change nothing."""
    gate = threading.Event()
    half = EngineDelta(tls.server.tokenizer.encode("Half"))
    tls.server.core.script = lambda request: [half, gate, *tls.server.deltas(request, " done<turn|>")]
    with openai.DefaultHttpxClient(verify=client_context(CLIENT)) as http_client:
        client = openai.OpenAI(
            base_url=f"{tls.server.base_url}/v1", api_key="unused", max_retries=0, timeout=60, http_client=http_client
        )
        stream = iter(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))
        text = ""
        try:
            while text != "Half":
                text += next(stream).choices[0].delta.content or ""
            tls.renew("server", key="client")
            wait_until(
                lambda: tls.shown_name() == "localhost" and "the former ones stay" in tls.server.process.log(),
                what="a complaint",
            )
            tls.renew("renewed")
            wait_until(lambda: tls.shown_name() == "localhost-renewed", what="the renewed certificate")
        finally:
            gate.set()
        text += "".join(part.choices[0].delta.content or "" for part in stream if part.choices)
    assert text == "Half done"


@pytest.mark.parametrize(
    ("mode", "certificate", "key", "authorities", "complaint"),
    [
        ("tls", None, "server.key", None, "NIM_SSL_MODE=tls needs NIM_SSL_CERTS_PATH"),
        ("mtls", "server.pem", None, None, "NIM_SSL_MODE=mtls needs NIM_SSL_KEY_PATH and NIM_SSL_CA_CERTS_PATH"),
        ("tls", "absent.pem", "server.key", None, "NIM_SSL_CERTS_PATH={absent.pem}: cannot be read: No such file"),
        ("tls", "server.pem", "absent.key", None, "NIM_SSL_KEY_PATH={absent.key}: cannot be read: No such file"),
        ("tls", "README.md", "server.key", None, "NIM_SSL_CERTS_PATH={README.md}: is no PEM file"),
        ("tls", "server.pem", "server.pem", None, "NIM_SSL_KEY_PATH={server.pem}: is no PEM file with PRIVATE KEY"),
        ("tls", "server.pem", "client.key", None, "NIM_SSL_KEY_PATH={client.key}: this is not the key"),
        ("tls", "server.pem", "encrypted.key", None, "NIM_SSL_KEY_PATH={encrypted.key}: the key is encrypted"),
        ("tls", "expired.pem", "expired.key", None, "NIM_SSL_CERTS_PATH={expired.pem}: certificate has expired"),
        ("mtls", "server.pem", "server.key", "absent.pem", "NIM_SSL_CA_CERTS_PATH={absent.pem}: cannot be read"),
        (
            "mtls",
            "server.pem",
            "server.key",
            "client.pem",
            "NIM_SSL_CA_CERTS_PATH={client.pem}: holds no certificate of",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(
    mode: Any, certificate: str | None, key: str | None, authorities: str | None, complaint: str
) -> None:
    """The variable, the file, and what is wrong with it; an encrypted key asks nobody for its password."""
    places = [None if name is None else TLS_DATA / name for name in (certificate, key, authorities)]
    settings = TlsSettings(mode=mode, certs_path=places[0], key_path=places[1], ca_certs_path=places[2])

    with pytest.raises(ConfigError) as caught:
        ServerTls.load(settings)

    assert str(caught.value).startswith(complaint.replace("{", f"{TLS_DATA}/").replace("}", ""))
