"""Health, models and documentation routes, and how the process starts and stops."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from engine.core import EngineDelta
from tests.api.conftest import ALIAS, MODEL, ScriptedServer
from tests.fakes.processes import ServerProcess, free_port, wait_until


def test_live_and_ready(server: ScriptedServer) -> None:
    """Live is always 200; ready asks the engine."""
    live = requests.get(f"{server.base_url}/v1/health/live", timeout=60)
    assert (live.status_code, live.json()["status"]) == (200, "live")
    ready = requests.get(f"{server.base_url}/v1/health/ready", timeout=60)
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
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
    codes = []
    for is_there in (True, False):
        front.touch() if is_there else front.unlink()
        codes.append(requests.get(f"{server.base_url}/v1/health/ready", timeout=60).status_code)
    assert codes == [503, 200]


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
    schema = requests.get(f"{server.base_url}/openapi.json", timeout=60).json()
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    assert "messages" in body["content"]["application/json"]["schema"]["properties"]


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
        timeout=60,
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


@pytest.mark.parametrize("content", [None, "{", '{"engine_endpoints": []}'])
def test_bad_runtime_file_is_one_line(tmp_path: Path, content: str | None) -> None:
    """A missing or wrong runtime file ends the start with the code for bad configuration."""
    path = tmp_path / "api.json"
    if content is not None:
        path.write_text(content)
    done = _run(path, {"NIM_SERVER_PORT": str(free_port())})
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


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
