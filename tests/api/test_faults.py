"""What a client sees when the engine is busy, refuses, fails or dies; and that a client that leaves frees its slot."""

from __future__ import annotations

import json
import threading
from typing import Any

import openai
import pytest
import requests

from engine.core import EngineDelta
from engine.errors import (
    ContextOverflowError,
    EngineError,
    EngineUnavailableError,
    InvalidGrammarError,
    InvalidImageError,
    InvalidRequestError,
    QueueFullError,
)
from tests.api.conftest import MODEL, ScriptedServer
from tests.fakes.processes import wait_until

ASK: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (QueueFullError("full"), 429, "rate_limit_error", "queue_full"),
        (EngineUnavailableError("loading"), 503, "service_unavailable", "engine_unavailable"),
        (ContextOverflowError(900, 800), 400, "invalid_request_error", "context_length_exceeded"),
        (InvalidGrammarError("bad rule"), 400, "invalid_request_error", "invalid_grammar"),
        (InvalidImageError("bad size"), 400, "invalid_request_error", "invalid_image"),
        (InvalidRequestError("bad id"), 400, "invalid_request_error", "invalid_value"),
        (EngineError("internal detail"), 500, "server_error", "engine_error"),
    ],
)
def test_engine_error_before_the_first_token(
    server: ScriptedServer, error: EngineError, status: int, kind: str, code: str, *, stream: bool
) -> None:
    """It is an HTTP status with the matching code, streamed or not; what may pass says when to retry."""
    server.core.script = lambda _request: [error]
    response = server.post({"messages": ASK, "stream": stream})
    assert response.status_code == status, response.text
    assert (response.json()["error"]["type"], response.json()["error"]["code"]) == (kind, code)
    assert ("retry-after" in response.headers) is (status in {429, 503})
    assert "internal detail" not in response.text


def test_context_overflow_tells_the_numbers(server: ScriptedServer) -> None:
    """A prompt over the context is a 400 with both numbers; so is a limit that does not fit."""
    response = server.post({"messages": [{"role": "user", "content": "x" * 5000}]})
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert "4096" in error["message"]
    assert "50" in error["message"]
    response = server.post({"messages": ASK, "max_tokens": 5000})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "max_tokens"
    assert "5000" in response.json()["error"]["message"]


def test_unsupported_schema_names_the_keyword(server: ScriptedServer) -> None:
    """A schema that cannot be enforced is a 400 that says why."""
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
    response = server.post(
        {"messages": ASK, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    )
    assert response.status_code == 400, response.text
    assert "$ref" in response.text or "nowhere" in response.text


def _half(server: ScriptedServer, *rest: Any) -> None:
    """Make the model write half an answer and then do ``rest``."""
    ids = server.tokenizer.encode("Half")
    server.core.script = lambda _request: [*(EngineDelta((token_id,)) for token_id in ids), *rest]


def test_engine_error_in_a_stream_is_an_event(server: ScriptedServer) -> None:
    """What was written arrives, then one error event and the end; the SDK raises it."""
    _half(server, EngineError("internal detail"))
    events = server.events({"messages": ASK})
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-2]) == "Half"
    assert set(events[-2]) == {"error"}
    assert events[-2]["error"]["code"] == "engine_error"
    assert "internal detail" not in json.dumps(events)
    assert events[-1] == "[DONE]"
    with pytest.raises(openai.APIError, match="engine failed"):
        list(server.client.chat.completions.create(model=MODEL, messages=ASK, stream=True))


def test_lost_engine_in_a_stream_is_an_event_and_readiness_follows(server: ScriptedServer) -> None:
    """When the engine's connection breaks mid-stream the client gets an error event; ready is 503 until it is back."""
    gate = threading.Event()
    _half(server, gate)
    ready = f"{server.base_url}/v1/health/ready"
    try:
        with server.post({"messages": ASK, "stream": True}, stream=True) as response:
            lines = response.iter_lines()
            wait_until(lambda: b'"content":"H' in next(lines), what="the first text")
            server.engine.stop()
            rest = [line for line in lines if line]
        assert json.loads(rest[-2].removeprefix(b"data: "))["error"]["code"] == "engine_unavailable"
        assert rest[-1] == b"data: [DONE]"
        response = requests.get(ready, timeout=60)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "not_ready"
        refused = server.post({"messages": ASK})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert requests.get(f"{server.base_url}/v1/health/live", timeout=60).status_code == 200
    finally:
        gate.set()
        server.engine.start()
    wait_until(server.process.is_ready, what="ready again")
    server.reply("Back<turn|>")
    assert server.post({"messages": ASK}).json()["choices"][0]["message"]["content"] == "Back"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_frees_the_engine(server: ScriptedServer, n: int, *, stream: bool) -> None:
    """Closing the connection ends the sequences at once, in the middle of an answer, streamed or not."""
    gate = threading.Event()
    _half(server, gate)
    address = server.base_url.removeprefix("http://").split(":")
    body = json.dumps({"messages": ASK, "stream": stream, "n": n})
    import socket  # noqa: PLC0415 - a raw connection is needed only here

    with socket.create_connection((address[0], int(address[1])), timeout=60) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body.encode())
        wait_until(lambda: len(server.core.running) == n, what="the sequences to run")
    try:
        wait_until(lambda: not server.core.running, what="the sequences to end")
    finally:
        gate.set()


def test_fault_of_one_choice_ends_all(server: ScriptedServer) -> None:
    """When one of several choices fails, the others are given up."""
    gate = threading.Event()
    scripts = [[EngineDelta(server.tokenizer.encode("A")), gate], [QueueFullError("full")]]
    server.core.script = lambda _request: scripts.pop()
    try:
        assert server.post({"messages": ASK, "n": 2, "stream": True}).status_code == 429
        wait_until(lambda: not server.core.running, what="the other sequence to end")
    finally:
        gate.set()
