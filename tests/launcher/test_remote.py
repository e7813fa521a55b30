"""The API alone, over engines that somebody else started: what it needs, and what it does when engines come and go."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from config.runtime import EngineConnection, EngineRuntime
from config.settings_transport import RemoteSettings
from engine.server import InferenceService
from engine.triton.connection import ConnectionOptions
from engine.triton.protocol import add_GRPCInferenceServiceServicer_to_server
from launcher.errors import ExitCode, LaunchError
from launcher.remote import connection_to
from tests.conftest import DEMO
from tests.fakes import console
from tests.fakes.processes import ServerProcess, free_port, wait_until
from tests.fakes.scripted_engine import ScriptedEngine
from tests.fakes.triton_engine import is_model_ready
from tests.fakes.vocabulary import build_tokenizer_json

TLS = Path(__file__).parents[1] / "data" / "tls"
ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 20,
}  # fmt: skip


class Api(ServerProcess):
    """``gemma4-nim serve`` with engines elsewhere."""

    def _is_ready_or_dead(self) -> bool:
        """Wait for no more than that it lives: its engines come later."""
        try:
            return self.get("live").ok
        except requests.ConnectionError:
            return self.process is not None and self.process.poll() is not None

    def get(self, what: str) -> requests.Response:
        return requests.get(f"{self.base_url}/v1/health/{what}", timeout=60)

    def ask(self) -> requests.Response:
        return requests.post(f"{self.base_url}/v1/chat/completions", json=ASK, timeout=60)


@contextmanager
def _api(folder: Path, **variables: str) -> Iterator[Api]:
    settings = {"NIM_CACHE_PATH": str(folder / "cache"), "NIM_LOG_LEVEL": "INFO", **variables}
    with Api([console.script("gemma4-nim"), "serve"], free_port(), folder / "serve.log", settings) as running:
        yield running


@contextmanager
def _engine(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run an engine process at a port of this machine, as somebody else would."""
    runtime = EngineRuntime(
        model_path=DEMO / "model.gguf", tokenizer_path=DEMO / "tokenizer.json", endpoint=f"127.0.0.1:{port}",
        context_tokens=1024, max_sequences=2,
    )  # fmt: skip
    path = folder / f"{port}.json"
    path.write_text(runtime.model_dump_json())
    process = subprocess.Popen([sys.executable, "-m", "engine", "--runtime", str(path)])
    try:
        yield process
    finally:
        process.kill()
        process.wait(100)


def test_engines_come_and_go(tmp_path: Path) -> None:
    """503 with a phase before there is one, 200 with the first, answers with one of two killed, and 503 without any."""
    ports = free_port(), free_port()
    endpoints = ",".join(f"127.0.0.1:{port}" for port in ports)
    with _api(tmp_path, NIM_MODEL_PATH=str(DEMO), NIM_ENGINE_ENDPOINTS=endpoints) as api:
        wait_until(lambda: api.get("ready").json().get("phase") == "connecting", what="the phase")
        assert api.get("ready").status_code == 503
        assert api.children("engine") == []
        with _engine(ports[0], tmp_path) as first, _engine(ports[1], tmp_path):
            wait_until(api.is_ready, what="ready")
            wait_until(lambda: all(is_model_ready(f"127.0.0.1:{port}") for port in ports), what="both engines")
            wait_until(lambda: "ready on" in api.log(), what="the launcher's announcement")
            assert "Paris" in api.ask().text
            first.kill()
            first.wait(100)
            for _ in range(4):
                answer = api.ask()
                assert answer.status_code == 200, answer.text
                assert "Paris" in answer.text
            assert api.get("ready").status_code == 200
        wait_until(lambda: api.get("ready").status_code == 503, what="the loss of both to be seen")
        assert api.get("ready").json()["phase"] == "engine_unavailable"
        assert api.get("live").status_code == 200
        assert api.ask().status_code == 503
        with _engine(ports[1], tmp_path):
            wait_until(api.is_ready, what="ready again")
            assert "Paris" in api.ask().text


class TlsEngine(ScriptedEngine):
    """A scripted engine that speaks TLS and wants to see a certificate."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(folder / "unused")
        self.endpoint = f"127.0.0.1:{port}"

    async def _start(self) -> None:
        service = InferenceService()
        service.core = self.core
        pem = (TLS / "server.pem").read_bytes()
        clients = (TLS / "client.pem").read_bytes()
        self._server = grpc.aio.server()
        add_GRPCInferenceServiceServicer_to_server(service, self._server)
        credentials = grpc.ssl_server_credentials([(pem, pem)], clients, require_client_auth=True)
        self._server.add_secure_port(self.endpoint, credentials)
        await self._server.start()


def test_engines_behind_tls(tmp_path: Path) -> None:
    """With authority, certificate and name the engine is reached; the settings reach the API, which makes it ready."""
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(build_tokenizer_json())
    own = str(TLS / "client.pem")
    with TlsEngine(free_port(), tmp_path) as engine:
        files = {"NIM_ENGINE_TLS_CA": str(TLS / "authority.pem"), "NIM_ENGINE_TLS_SERVER_NAME": "images.test"}
        keys = {"NIM_ENGINE_TLS_CERT": own, "NIM_ENGINE_TLS_KEY": own}
        model = {"NIM_TOKENIZER_PATH": str(tokenizer), "NIM_SERVED_MODEL_NAME": "some/model"}
        with _api(tmp_path, NIM_ENGINE_ENDPOINTS=engine.endpoint, **files, **keys, **model) as api:
            wait_until(api.is_ready, what="ready")
            listed = requests.get(f"{api.base_url}/v1/models", timeout=60).json()
            assert [model["id"] for model in listed["data"]] == ["some/model"]


def _dry_run(tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = {"NIM_CACHE_PATH": str(tmp_path), "NIM_ENGINE_ENDPOINTS": "a.test:8001,b.test:8001", **variables}
    return console.run("gemma4-nim", "serve", "--dry-run", *arguments, variables=settings)


def test_the_plan_says_that_no_engine_is_started(tmp_path: Path) -> None:
    """Endpoints, the reason and what protects the connections, for people and as JSON."""
    text = _dry_run(tmp_path, NIM_MODEL_PATH=str(DEMO))
    assert text.returncode == 0, text.stderr
    for words in ("a.test:8001, b.test:8001", "NIM_ENGINE_ENDPOINTS", "no TLS", "demo-moe"):
        assert words in text.stdout
    keepalive = {"NIM_ENGINE_KEEPALIVE_SECONDS": "30", "NIM_ENGINE_TLS": "1"}
    record = json.loads(_dry_run(tmp_path, "--json", NIM_MODEL_PATH=str(DEMO), **keepalive).stdout)
    assert record["engines"]["endpoints"] == ["a.test:8001", "b.test:8001"]
    assert record["engines"]["keepalive_s"] == 30
    assert record["engines"]["tls"] == {"authorities": None, "certificate": None, "key": None, "server_name": None}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ("NIM_TOKENIZER_PATH",)),
        ({"NIM_TOKENIZER_PATH": str(DEMO / "tokenizer.json")}, ("NIM_SERVED_MODEL_NAME",)),
        ({"NIM_MODEL_PATH": str(DEMO), "NIM_ENGINE_TRANSPORT": "triton"}, ("NIM_ENGINE_TRANSPORT",)),
        ({"NIM_ENGINE_ENDPOINTS": "nowhere"}, ("NIM_ENGINE_ENDPOINTS", "host:port")),
        ({"NIM_ENGINE_ENDPOINTS": "a:1,a:1"}, ("NIM_ENGINE_ENDPOINTS", "twice")),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, variables: dict[str, str], words: tuple[str, ...]) -> None:
    """A start that lacks something, or contradicts itself, names the variable."""
    console.fails_well(_dry_run(tmp_path, **variables), ExitCode.BAD_SETTINGS, *words)


@pytest.mark.parametrize(
    ("files", "variable"),
    [
        ({"tls_ca": TLS / "nowhere.pem"}, "NIM_ENGINE_TLS_CA"),
        ({"tls_ca": Path(__file__)}, "NIM_ENGINE_TLS_CA"),
        ({"tls_cert": TLS / "client.pem"}, "NIM_ENGINE_TLS_KEY is not"),
        ({"tls_key": TLS / "client.pem"}, "NIM_ENGINE_TLS_CERT is not"),
        ({"tls_cert": TLS / "client.pem", "tls_key": Path(__file__)}, "NIM_ENGINE_TLS_KEY"),
        ({"tls_cert": TLS / "client.pem", "tls_key": TLS / "server.pem"}, "NIM_ENGINE_TLS_KEY"),
    ],
)
def test_tls_files_are_looked_at_before_the_start(files: dict[str, Path], variable: str) -> None:
    """A file that is missing, is none, or does not belong to the other is named by its variable."""
    with pytest.raises(LaunchError, match=variable) as caught:
        connection_to(RemoteSettings.model_validate(files))
    assert caught.value.code is ExitCode.BAD_SETTINGS


def test_times_and_files_reach_the_client() -> None:
    """What was set is what the API's client connects with."""
    given = {
        "tls_ca": TLS / "authority.pem", "tls_name": "images.test", "keepalive_s": 60, "keepalive_timeout_s": 7,
        "connect_timeout_s": 3,
    }  # fmt: skip
    sent = connection_to(RemoteSettings.model_validate(given)).model_dump_json()
    options = ConnectionOptions.of(EngineConnection.model_validate_json(sent))
    assert (options.connect_timeout_s, options.keepalive_s, options.keepalive_timeout_s) == (3, 60, 7)
    assert options.tls is not None
    assert (options.tls.authorities, options.tls.server_name) == (TLS / "authority.pem", "images.test")


def test_doctor_asks_each_engine(tmp_path: Path) -> None:
    """Each engine that does not answer is told; another may, so the start would work."""
    variables = {
        "NIM_MODEL_PATH": str(DEMO),
        "NIM_ENGINE_ENDPOINTS": f"127.0.0.1:{free_port()}",
        "NIM_CACHE_PATH": str(tmp_path),
        "NIM_SERVER_PORT": str(free_port()),
    }
    done = console.run("gemma4-nim", "doctor", "--json", variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (finding,) = (one for one in json.loads(done.stdout)["findings"] if one["check"] == "engine")
    assert finding["status"] == "warning"
    assert variables["NIM_ENGINE_ENDPOINTS"] in finding["what"]
