"""Health, models and documentation routes, and how the process starts and stops."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest
import requests

from api.__main__ import main
from api.dialects.openai_chat import ChatCompletionRequest
from engine.core import EngineDelta
from tests.api.conftest import ALIAS, MODEL, ScriptedServer
from tests.fakes.processes import ServerProcess, free_port, wait_until


def test_live_and_ready(server: ScriptedServer) -> None:
    """Live is always 200; ready asks the engine."""
    live = requests.get(f"{server.base_url}/v1/health/live", timeout=60)
    assert (live.status_code, live.json()["status"]) == (200, "live")
    # Some load balancers ask without wanting the body.
    assert requests.head(f"{server.base_url}/v1/health/live", timeout=60).status_code == 200
    answers: list[requests.Response] = []

    def is_ready() -> bool:
        answers.append(requests.get(f"{server.base_url}/v1/health/ready", timeout=60))
        return answers[-1].status_code == 200

    # An engine that takes seconds to answer, as it may on a busy machine, is not ready for that time.
    wait_until(is_ready, what="ready")
    ready = answers[-1]
    assert ready.json()["status"] == "ready"
    assert ready.json()["object"] == "health.response"


def test_not_ready_tells_the_phase(server: ScriptedServer) -> None:
    """While the engine is not healthy ready is a 503 with what the launcher last wrote."""
    status_path = Path(json.loads(server.api_runtime.read_text())["status_path"])
    server.core.healthy = False
    response = requests.get(f"{server.base_url}/v1/health/ready", timeout=60)
    assert response.status_code == 503
    assert response.json()["phase"] == "starting"
    assert response.headers["retry-after"]
    status_path.write_text(json.dumps({"phase": "loading_model", "bytes_done": 5}))
    try:
        body = requests.get(f"{server.base_url}/v1/health/ready", timeout=60).json()
        assert (body["phase"], body["bytes_done"]) == ("loading_model", 5)
        assert body["error"]["code"] == "not_ready"
    finally:
        status_path.unlink()


def test_nobody_is_told_ready_while_the_launcher_still_answers(server: ScriptedServer) -> None:
    """On the socket that both accept from the next request could meet the launcher, which has only 503 for it."""
    front = Path(json.loads(server.api_runtime.read_text())["front_path"])
    wait_until(server.process.is_ready, what="ready")
    front.touch()
    try:
        assert requests.get(f"{server.base_url}/v1/health/ready", timeout=60).status_code == 503
    finally:
        front.unlink()
    wait_until(server.process.is_ready, what="ready again")


def test_models_are_listed(server: ScriptedServer) -> None:
    """Every served name is a model; the SDK can list and get them."""
    models = server.client.models.list().data
    assert [model.id for model in models] == [MODEL, ALIAS]
    one = server.client.models.retrieve(ALIAS)
    assert one.created == 1_790_000_000
    body = requests.get(f"{server.base_url}/v1/models/{MODEL}", timeout=60).json()
    assert (body["id"], body["root"], body["max_model_len"]) == (MODEL, MODEL, 4096)


def test_every_served_name_works(server: ScriptedServer) -> None:
    """A request may use any served name, or none; the answer names the first."""
    for fields in ({"model": MODEL}, {"model": ALIAS}, {}):
        response = server.post({"messages": [{"role": "user", "content": "x"}], **fields})
        assert response.json()["model"] == MODEL


def test_docs_need_no_other_host(server: ScriptedServer) -> None:
    """The documentation page lists the routes and loads nothing from elsewhere."""
    page = requests.get(f"{server.base_url}/docs", timeout=60)
    assert page.status_code == 200
    assert "/v1/chat/completions" in page.text
    assert "thinking_token_budget" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_description_for_programs_is_complete(server: ScriptedServer) -> None:
    """Every reference leads somewhere, and answers and errors are described as they are."""
    described = requests.get(f"{server.base_url}/openapi.json", timeout=60).json()
    schemas = described["components"]["schemas"]
    wanted = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(described)))
    assert wanted == {f"#/components/schemas/{name}" for name in schemas}
    chat = described["paths"]["/v1/chat/completions"]["post"]
    body = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    # A field without a note, or a note without its field, is a fault.
    assert schemas[body]["properties"].keys() == ChatCompletionRequest.model_fields.keys()
    assert all(field["description"] for field in schemas[body]["properties"].values())
    described_as = {
        "ChatCompletion": server.post({"messages": [{"role": "user", "content": "x"}]}).json(),
        "Error": server.post({}).json(),
    }
    for name, answer in described_as.items():
        jsonschema.validate(answer, {"$ref": f"#/components/schemas/{name}", "components": described["components"]})
        assert answer.keys() <= schemas[name]["properties"].keys()


def test_log_has_no_prompts(server: ScriptedServer) -> None:
    """The access log tells path, status and time, and nothing that anyone said."""
    server.reply("verysecretanswer<turn|>")
    response = server.post({"messages": [{"role": "user", "content": "verysecretquestion"}]})
    request_id = response.headers["x-request-id"]
    wait_until(lambda: request_id in server.process.log(), what="the log line")
    line = next(line for line in server.process.log().splitlines() if request_id in line)
    assert "POST /v1/chat/completions 200" in line
    assert "prompt_tokens=" in line
    assert "verysecret" not in server.process.log()


def _run(runtime: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api", "--runtime", str(runtime)],
        env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path), **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_taken_port_is_one_line_and_its_own_exit_code(server: ScriptedServer) -> None:
    """A port that is in use ends the start with a clear line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = _run(server.api_runtime, {"NIM_SERVER_HOST": "127.0.0.1", "NIM_SERVER_PORT": str(port)})
    assert done.returncode == 98
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr


def test_missing_runtime_file_is_one_line(tmp_path: Path) -> None:
    """It ends the start with the code for bad configuration."""
    done = _run(tmp_path / "api.json", {"NIM_SERVER_PORT": str(free_port())})
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["{", '{"engine_endpoints": []}'])
def test_wrong_runtime_file_is_one_line(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for one that cannot be understood; here the process is this one, whose logging stays as it is."""
    monkeypatch.setattr("api.__main__.configure_logging", lambda *_: None)
    path = tmp_path / "api.json"
    path.write_text(content)
    assert main(["--runtime", str(path)]) == 64
    assert capsys.readouterr().err.count("\n") == 1


def test_sigterm_lets_running_answers_finish(server: ScriptedServer, tmp_path: Path) -> None:
    """On SIGTERM ready turns 503 and new requests are refused; a running stream ends whole; the exit code is 0."""
    command = [sys.executable, "-m", "api", "--runtime", str(server.api_runtime)]
    gate = threading.Event()
    first, rest = server.tokenizer.encode("A"), server.tokenizer.encode_marked("B<turn|>")
    final = server.deltas
    server.core.script = lambda request: [EngineDelta(first), gate, EngineDelta(rest), final(request, "")[-1]]
    ask = {"messages": [{"role": "user", "content": "x"}]}
    with ServerProcess(command, free_port(), tmp_path / "log", {}) as other:
        assert other.process is not None
        url = f"{other.base_url}/v1/chat/completions"
        with requests.post(url, json={**ask, "stream": True}, stream=True, timeout=60) as response:
            lines = response.iter_lines()
            wait_until(lambda: b'"A"' in next(lines), what="the first token")
            other.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not other.is_ready(), what="not ready")
            refused = requests.post(url, json=ask, timeout=60)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            gate.set()
            assert list(lines)[-2:] == [b"data: [DONE]", b""]
        assert other.process.wait(100) == 0


def test_lenient_server_lists_what_it_ignored(server: ScriptedServer, tmp_path: Path) -> None:
    """With ``NIM_LENIENT_REQUESTS`` unknown fields at any depth are left out and named in a header."""
    command = [sys.executable, "-m", "api", "--runtime", str(server.api_runtime)]
    with ServerProcess(command, free_port(), tmp_path / "log", {"NIM_LENIENT_REQUESTS": "1"}) as other:
        url = f"{other.base_url}/v1/chat/completions"
        body = {"messages": [{"role": "user", "content": "x", "name": "bob"}], "banana": 1, "nvext": {"x\r\ny: z": 2}}
        for stream in (False, True):
            response = requests.post(url, json={**body, "stream": stream}, timeout=60)
            assert response.status_code == 200, response.text
            ignored = response.headers["x-nim-ignored-fields"].split(", ")
            assert sorted(ignored) == ["banana", "messages.0.name", "nvext.x??y: z"]
        plain = requests.post(url, json={"messages": [{"role": "user", "content": "x"}]}, timeout=60)
        assert "x-nim-ignored-fields" not in plain.headers
        assert requests.post(url, json={**body, "n": 0}, timeout=60).json()["error"]["param"] == "n"


def test_capabilities_tell_what_is_taken(server: ScriptedServer) -> None:
    """Every listed field is one that requests may hold, and limits are the real ones."""
    body = requests.get(f"{server.base_url}/v1/capabilities", timeout=60).json()
    chat = body["chat_completions"]
    assert {"messages", "tools", "stop", "thinking_token_budget", "nvext"} <= set(chat["fields"])
    assert not set(chat["fields"]) & set(chat["unsupported_fields"])
    assert chat["unknown_fields"] == "refused"
    assert body["engine"]["context_tokens"] == 4096
    assert body["images"]["max_per_prompt"] == 5
    for field in chat["unsupported_fields"]:
        response = server.post({"messages": [{"role": "user", "content": "x"}], field: {}})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == field
