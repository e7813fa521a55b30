"""How streamed answers reach clients: slow ones, ones that keep the connection, and under another ASGI server."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from api.http.app import create_app
from api.http.options import ApiOptions
from api.http.response_body import AsgiBody, TransportBody, response_body
from config.runtime import ApiRuntime
from engine.core import EngineDelta, FinishReason, Usage
from tests.api.conftest import MODEL, ScriptedServer
from tests.fakes.processes import wait_until

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Tell me a story."}]
WORD = "word "
MANY = 40_000
"""As events of their own, so many words are more than the sockets of both sides keep for a reader."""


def _texts(body: bytes) -> list[str]:
    """Return the texts of all events of a whole answer; it must have its end."""
    payloads = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert payloads[-1] == b"[DONE]"
    events = [json.loads(payload) for payload in payloads[:-1]]
    return [choice["delta"]["content"] for e in events for choice in e["choices"] if choice["delta"].get("content")]


def _long_answer(server: ScriptedServer, gate: threading.Event, words: int = MANY) -> str:
    """Make the model write much, wait for the gate, and write the end; return the whole text."""
    ids = server.tokenizer.encode(WORD)
    usage = Usage(1, 0, words * len(ids))

    def script(_request: Any) -> Iterator[Any]:
        for _ in range(words):
            yield EngineDelta(ids)
        yield gate
        yield EngineDelta(server.tokenizer.encode("end"), (), FinishReason.STOP, usage)

    server.core.script = script
    return WORD * words + "end"


def _post(server: ScriptedServer, **fields: Any) -> http.client.HTTPConnection:
    """Send a streamed request on a connection of its own, which is not read from yet."""
    connection = http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=60)
    _request(connection, **fields)
    return connection


def _request(connection: http.client.HTTPConnection, **fields: Any) -> None:
    body = json.dumps({"model": MODEL, "messages": ASK, "stream": True, **fields})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})


@pytest.mark.parametrize("n", [1, 2])
def test_slow_client_gets_everything(server: ScriptedServer, n: int) -> None:
    """A client that does not read at first loses nothing, and the engine does not wait for it."""
    gate = threading.Event()
    text = _long_answer(server, gate, MANY // n)
    connection = _post(server, n=n)
    try:
        response = connection.getresponse()
        wait_until(lambda: len(server.core.running) == n, what="the sequences to run")
        gate.set()
        wait_until(lambda: not server.core.running, what="the engine to finish while nobody reads")
        texts = _texts(response.read())
    finally:
        gate.set()
        connection.close()
    assert len("".join(texts)) == n * len(text)
    if n == 1:
        assert "".join(texts) == text


def test_slow_client_that_leaves_frees_the_engine(server: ScriptedServer) -> None:
    """A client that is behind and then goes is noticed as any other."""
    gate = threading.Event()
    _long_answer(server, gate)
    connection = _post(server)
    try:
        connection.getresponse()
        wait_until(lambda: server.core.running, what="the sequence to run")
        connection.close()
        wait_until(lambda: not server.core.running, what="the sequence to end")
    finally:
        gate.set()


def test_error_reaches_a_slow_client_after_its_text(server: ScriptedServer) -> None:
    """What was held back when the engine failed comes before the error event."""
    gate = threading.Event()
    text = _long_answer(server, gate)
    connection = _post(server)
    try:
        response = connection.getresponse()
        wait_until(lambda: server.core.running, what="the sequence to run")
        # So much is more than the first events: the answer is under way, and the rest of it is held back.
        begun = response.read(4096)
        server.engine.stop()
        body = begun + response.read()
    finally:
        gate.set()
        connection.close()
        server.engine.start()
    wait_until(server.process.is_ready, what="ready again")
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert json.loads(events[-2])["error"]["code"] == "engine_unavailable"
    told = "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-2])
    assert text.startswith(told.rstrip())
    assert len(told) > len(WORD)


def test_connection_is_kept_after_a_stream(server: ScriptedServer) -> None:
    """One connection carries several streams and whole answers, one after the other."""
    server.reply("Hello there.<turn|>")
    connection = http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=60)
    connection.connect()
    local_port = connection.sock.getsockname()[1]
    for stream in (True, True, False, True):
        _request(connection, stream=stream)
        response = connection.getresponse()
        assert response.status == 200
        body = response.read()
        text = _texts(body) if stream else [json.loads(body)["choices"][0]["message"]["content"]]
        assert "".join(text) == "Hello there."
        assert connection.sock.getsockname()[1] == local_port
    connection.close()


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"logprobs": True}])
def test_another_asgi_server_gets_the_same(server: ScriptedServer, fields: dict[str, Any]) -> None:
    """Without uvicorn's transport the events are the same; several may share a piece."""
    server.reply("Hello \u2600 there.<turn|>")

    body = json.dumps({"model": MODEL, "messages": ASK, "stream": True, **fields}).encode()
    pieces: list[bytes] = []

    async def main() -> None:
        app = create_app(ApiRuntime.model_validate_json(server.api_runtime.read_text()), ApiOptions())
        received = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(received, None) or await asyncio.Event().wait()

        async def send(message: Any) -> None:
            pieces.append(message.get("body", b""))

        headers = [(b"content-type", b"application/json"), (b"host", b"test")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        asgi = {"asgi": {"version": "3.0"}, "http_version": "1.1", "query_string": b"", "scheme": "http"}
        async with app.router.lifespan_context(app):
            await app({**scope, **asgi}, receive, send)

    asyncio.run(main())
    lines = b"".join(pieces).split(b"\n\n")
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines if line and b"[DONE]" not in line]
    for index in range(fields.get("n", 1)):
        choices = [e["choices"][0] for e in events if e["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in choices) == "Hello \u2600 there."
        assert choices[-1]["finish_reason"] == "stop"


def test_uvicorns_transport_is_found() -> None:
    """Under the server that the product runs, pieces go to the transport: else a token would cost a task switch."""
    import uvicorn  # noqa: PLC0415 - only here

    bodies: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        bodies.append(body := response_body(receive, send))
        body.write(b"one, ")
        assert body.writer_between(b"<", b">", str.encode)("two" * 1000)
        await body.drain()
        await body.finish(b" end")

    async def main() -> requests.Response:
        server = uvicorn.Server(uvicorn.Config(app, http="httptools", lifespan="off", log_config=None))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            response = await asyncio.to_thread(requests.get, url, timeout=60)
            server.should_exit = True
            await serving
            return response

    response = asyncio.run(main())
    assert response.content == b"one, <" + b"two" * 1000 + b"> end"
    assert isinstance(bodies[0], TransportBody)
    assert isinstance(response_body(lambda: None, lambda _: None), AsgiBody)  # type: ignore[arg-type,return-value]
