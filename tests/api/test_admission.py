"""When requests are turned away: too many of one key, too long a wait, a server that stops. And how clients know."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from engine.core import EngineDelta
from engine.errors import QueueFullError
from tests.api.conftest import FILED_KEY, MODEL, OTHER_KEY, ScriptedServer, start_scripted_server
from tests.api.guarded import DEADLINE_S, connect, post
from tests.fakes.processes import TLS_DATA, wait_until

ASK: list[Any] = [{"role": "user", "content": "Hi"}]
WAITS = "NIM_MAX_QUEUE_SECONDS"


def _check_retry(headers: Any) -> None:
    """See that an answer says when to come again, in both forms."""
    assert int(headers["retry-after"]) >= 1
    assert (
        1000 * int(headers["retry-after"]) <= int(headers["retry-after-ms"]) < 1000 * int(headers["retry-after"]) + 500
    )


@contextlib.contextmanager
def _held(server: ScriptedServer) -> Iterator[None]:
    """Have answers begin, and go on only when the block ends."""
    gate = threading.Event()
    begun = EngineDelta(server.tokenizer.encode("Begun"))
    server.core.script = lambda request: [begun, gate, *server.deltas(request, "ended<turn|>", chunk=99)]
    try:
        yield
    finally:
        gate.set()


def test_one_key_may_not_take_all_places(guarded: ScriptedServer) -> None:
    """Its third request at once is told to come again, while others are served; then there is room again."""

    def ask(key: str) -> requests.Response:
        return requests.post(
            f"{guarded.base_url}/v1/chat/completions",
            json={"messages": ASK, "stream": True},
            headers={"x-api-key": key},
            stream=True,
            timeout=DEADLINE_S,
        )

    with contextlib.ExitStack() as stack:
        with _held(guarded):
            running = [stack.enter_context(ask(OTHER_KEY)) for _ in range(2)]
            assert [answer.status_code for answer in running] == [200, 200]
            refused = stack.enter_context(ask(OTHER_KEY))
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_concurrency")
            _check_retry(refused.headers)
            assert stack.enter_context(ask(FILED_KEY)).status_code == 200
        assert all(b"ended" in answer.content for answer in running)
    wait_until(lambda: ask(OTHER_KEY).status_code == 200, what="room")


def test_sdk_comes_again_when_it_is_told(server: ScriptedServer) -> None:
    """A full queue is 429 with both headers; the SDK waits for so long and is served."""
    full = [True]

    def script(request: Any) -> Any:
        return [QueueFullError("full")] if full and full.pop() else server.deltas(request, "Hi<turn|>")

    server.core.script = script
    client = openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="unused", max_retries=3, timeout=60)
    began = time.monotonic()

    assert client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content == "Hi"

    assert time.monotonic() - began >= 1
    full.append(True)
    refused = server.post({"messages": ASK})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    _check_retry(refused.headers)


@pytest.fixture
def stopping(tmp_path: Path) -> Iterator[ScriptedServer]:
    """A server with TLS on which answers have to begin soon, and which the test may stop."""
    tls = {
        "NIM_SSL_MODE": "tls",
        "NIM_SSL_CERTS_PATH": str(TLS_DATA / "server.pem"),
        "NIM_SSL_KEY_PATH": str(TLS_DATA / "server.key"),
    }
    with start_scripted_server(tmp_path, {**tls, WAITS: "5", "NIM_SHUTDOWN_GRACE_SECONDS": "100"}) as server:
        yield server


@pytest.mark.slow
def test_waiting_and_stopping(stopping: ScriptedServer) -> None:
    """Who waits too long gets 429 and leaves the queue. After SIGTERM new requests get 503, and what runs ends well."""
    server, authority = stopping, str(TLS_DATA / "ca.pem")
    process = server.process.process
    assert process is not None
    never = threading.Event()
    server.core.script = lambda _: [never]
    try:
        late = server.post({"messages": ASK}, verify=authority)
        assert (late.status_code, late.json()["error"]["code"]) == (429, "queue_timeout")
        _check_retry(late.headers)
        wait_until(lambda: not server.core.running, what="the place to be free")
    finally:
        never.set()
    with connect(server, ssl.create_default_context(cafile=authority)) as sending:
        with _held(server):
            running = _begun(server, authority)
            body = json.dumps({"messages": ASK}).encode()
            sending.send(post(body, "expect: 100-continue").removesuffix(body))
            assert sending.answer()[0] == 100
            process.send_signal(signal.SIGTERM)
            _check_stopping(server, authority)
            sending.send(body)
            wait_until(lambda: len(server.core.running) == 2, what="the request that was being sent")
        assert sending.answer()[2]["choices"][0]["message"]["content"] == "Begunended"
    with running:
        assert b"ended" in running.content
        assert running.content.endswith(b"data: [DONE]\n\n")
    assert process.wait(DEADLINE_S) == 0


def _check_stopping(server: ScriptedServer, authority: str) -> None:
    """See that probes and new requests are told of the stop."""
    health = f"{server.base_url}/v1/health"
    wait_until(
        lambda: requests.get(f"{health}/ready", verify=authority, timeout=DEADLINE_S).status_code == 503,
        what="not ready any more",
    )
    assert requests.get(f"{health}/live", verify=authority, timeout=DEADLINE_S).ok
    refused = server.post({"messages": ASK}, verify=authority)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    _check_retry(refused.headers)


def _begun(server: ScriptedServer, authority: str) -> requests.Response:
    """Return an answer that has begun; on a busy machine that may take another try, as for any client."""
    found: list[requests.Response] = []

    def begin() -> bool:
        answer = server.post({"messages": ASK, "stream": True}, stream=True, verify=authority)
        found.append(answer)
        return answer.status_code == 200

    wait_until(begin, what="an answer that begins in time")
    return found[-1]
