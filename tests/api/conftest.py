"""A real API process over a scripted engine: what the model writes is chosen by each test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from api.gemma4.tokenizer import Gemma4Tokenizer
from config.api_keys import digest
from engine.core import EngineDelta, EngineRequest, FinishReason, TokenLogprob, Usage
from tests.fakes.processes import ServerProcess, free_port
from tests.fakes.scripted_engine import Action, ScriptedCore, ScriptedEngine
from tests.fakes.triton_engine import TritonEngine
from tests.fakes.vocabulary import build_tokenizer_json

MODEL = "google/gemma-4-26b-a4b-it"
ALIAS = "demo/alias"
KEY = "first-key-of-the-tests-0123456789"
OTHER_KEY = "second-key-of-the-tests-0123456789"
FILED_KEY = "filed-key-of-the-tests-0123456789"
FILED_LINE = f"# keys of the tests\n\n{digest(FILED_KEY.encode())}  alice@example.org # a person\n"
ORIGIN = "https://chat.example.org"
GUARDS = {
    "NIM_API_KEYS": f"{KEY},{OTHER_KEY}",
    "NIM_CORS_ALLOW_ORIGINS": ORIGIN,
    "NIM_MAX_HEADER_BYTES": "4096",
    "NIM_MAX_HEADERS": "20",
    "NIM_MAX_JSON_DEPTH": "16",
    "NIM_MAX_CONNECTIONS": "64",
    "NIM_MAX_REQUESTS_PER_KEY": "2",
    "NIM_MAX_REQUEST_BYTES": "65536",
}
MakeEngine = Callable[[Path], ScriptedEngine | TritonEngine]


@dataclass
class ScriptedServer:
    """The API process, its engine, and short ways to use both."""

    process: ServerProcess
    engine: ScriptedEngine | TritonEngine
    tokenizer: Gemma4Tokenizer
    client: openai.OpenAI
    api_runtime: Path

    @property
    def core(self) -> ScriptedCore:
        """The engine's core: scripts in, requests out."""
        return self.engine.core

    @property
    def base_url(self) -> str:
        """Where the API listens."""
        return self.process.base_url

    def reply(self, *texts: str, chunk: int = 1, finish: FinishReason = FinishReason.STOP) -> None:
        """Make the model write ``texts``, one per request, the last one for all further requests.

        Markers are spelled out and stand for their tokens; ``chunk`` ids travel per delta.
        """
        queue = list(texts)

        def script(request: EngineRequest) -> Iterable[Action]:
            text = queue.pop(0) if len(queue) > 1 else queue[0]
            return self.deltas(request, text, chunk=chunk, finish=finish)

        self.core.script = script

    def deltas(
        self, request: EngineRequest, text: str, *, chunk: int = 1, finish: FinishReason = FinishReason.STOP
    ) -> list[EngineDelta]:
        """Return the deltas of an answer that has ``text``."""
        ids = self.tokenizer.encode_marked(text)
        wanted = request.logprobs
        deltas = []
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            logged = () if wanted is None else tuple(_logprob(token_id, wanted) for token_id in part)
            # As every engine does, the first delta tells what the prefix cache held.
            early = None if deltas else Usage(len(request.prompt_ids), 3, 1)
            deltas.append(EngineDelta(part, logged, usage=early))
        usage = Usage(len(request.prompt_ids), 3, len(ids))
        return [*deltas, EngineDelta((), finish_reason=finish, usage=usage)]

    def prompt(self) -> str:
        """Return the last prompt that the engine was given, as text with markers."""
        return self.tokenizer.decode_marked(self.core.requests[-1].prompt_ids)

    def post(self, body: Any = None, **options: Any) -> requests.Response:
        """Post a chat request without the SDK's own checks."""
        if body is not None:
            options["json"] = body
        return requests.post(f"{self.base_url}/v1/chat/completions", timeout=100, **options)

    def events(self, body: dict[str, Any]) -> list[Any]:
        """Post a streamed request and return the payload of every event."""
        with self.post({**body, "stream": True}, stream=True) as response:
            assert response.status_code == 200, response.text
            lines = [line for line in response.iter_lines() if line]
        assert all(line.startswith(b"data: ") for line in lines)
        payloads = [line.removeprefix(b"data: ") for line in lines]
        return [payload.decode() if payload == b"[DONE]" else json.loads(payload) for payload in payloads]


def _logprob(token_id: int, rivals: int) -> TokenLogprob:
    return TokenLogprob(token_id, -0.5, tuple((token_id + offset, -0.5 - offset) for offset in range(rivals)))


@contextmanager
def start_scripted_server(
    folder: Path, variables: Mapping[str, str], make_engine: MakeEngine = ScriptedEngine
) -> Iterator[ScriptedServer]:
    """Run the scripted engine and one API process with these ``NIM_*`` variables."""
    tokenizer_json = build_tokenizer_json()
    (folder / "tokenizer.json").write_text(tokenizer_json)
    runtime_path = folder / "api.json"
    with make_engine(folder / "engine.sock") as engine:
        runtime = {
            "engine_endpoints": [engine.endpoint],
            "tokenizer_path": str(folder / "tokenizer.json"),
            "served_names": [MODEL, ALIAS],
            "created": 1_790_000_000,
            "status_path": str(folder / "status.json"),
            "front_path": str(folder / "front"),
            "adapters": True,
        }
        runtime_path.write_text(json.dumps(runtime))
        command = [sys.executable, "-m", "api", "--runtime", str(runtime_path)]
        with ServerProcess(command, free_port(), folder / "api.log", {"NIM_LOG_LEVEL": "INFO", **variables}) as process:
            client = openai.OpenAI(base_url=f"{process.base_url}/v1", api_key="unused", max_retries=0, timeout=60)
            server = ScriptedServer(process, engine, Gemma4Tokenizer.from_json(tokenizer_json), client, runtime_path)
            server.reply("Hi<turn|>")
            yield server


@pytest.fixture(scope="session")
def make_engine(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> MakeEngine:
    """Return what makes a scripted engine at a socket: on its own, or behind Triton (``--transport triton``)."""
    if pytestconfig.getoption("--transport") == "embedded":
        return ScriptedEngine
    python: Path = request.getfixturevalue("triton_python")
    return lambda socket_path: TritonEngine(socket_path, python)


@pytest.fixture(scope="session")
def scripted_server(tmp_path_factory: pytest.TempPathFactory, make_engine: MakeEngine) -> Iterator[ScriptedServer]:
    """Start the scripted engine and one API process for the session."""
    variables = {"NIM_MAX_REQUEST_BYTES": str(4 * 1024 * 1024)}
    with start_scripted_server(tmp_path_factory.mktemp("scripted"), variables, make_engine) as server:
        yield server


@pytest.fixture(scope="session")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """Start a server with keys, a file of keys, an origin and narrow limits for the session."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys.txt").write_text(FILED_LINE)
    variables = {**GUARDS, "NIM_API_KEY_HASHES_PATH": str(folder / "keys.txt")}
    with start_scripted_server(folder, variables) as server:
        yield server


@pytest.fixture
def guarded(guarded_server: ScriptedServer) -> ScriptedServer:
    """Return it with a fresh script."""
    guarded_server.reply("Hi<turn|>")
    return guarded_server


@pytest.fixture
def server(scripted_server: ScriptedServer) -> ScriptedServer:
    """Return the server with a fresh script and no memory of earlier requests."""
    if isinstance(scripted_server.engine, TritonEngine):
        scripted_server.engine.check()
    scripted_server.reply("Hi<turn|>")
    scripted_server.core.requests.clear()
    scripted_server.core.healthy = True
    scripted_server.core.vision = True
    scripted_server.core.adapters = ()
    return scripted_server
