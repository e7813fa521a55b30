"""Requests that are too large, too deep, too slow or no requests are refused in OpenAI's form; the next is served."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from api.http.limits import check_depth
from api.http.refusals import DeepJsonError
from tests.api.conftest import GUARDS, KEY, ScriptedServer, start_scripted_server
from tests.api.guarded import DEADLINE_S, RawClient, check_error, connect, head, post, send
from tests.fakes.processes import wait_until

BEARER = f"authorization: Bearer {KEY}"
ASK = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"hello\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00" + bytes(300), 400, "malformed_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
        (b"GET /v1/models HTTP/9.9\r\n\r\n", 400, "malformed_request"),
        (b"GET /v1/models\x00 HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400, "malformed_request"),
        (head("POST", "/", "content-length: 5", "content-length: 6"), 400, "malformed_request"),
        (head("POST", "/", "content-length: -1"), 400, "malformed_request"),
        (head("POST", "/", "transfer-encoding: chunked", "content-length: 5") + b"0\r\n\r\n", 400, "malformed_request"),
        (
            head("POST", "/v1/chat/completions", BEARER, "transfer-encoding: chunked") + b"zz\r\n",
            400,
            "malformed_request",
        ),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (head("GET", "/", "x: " + "a" * 5000), 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000, 431, "headers_too_large"),
        (head("GET", "/", *["a: b"] * 30), 431, "headers_too_large"),
        (post(b'{"a":' + b"[" * 20 + b"]" * 20 + b"}", BEARER), 400, "json_too_deep"),
        (post(b"[" * 30_000, BEARER), 400, "json_too_deep"),
        (post(b'{"messages": 1', BEARER), 400, "malformed_json"),
        (post(b" " * 70_000, BEARER), 413, "request_too_large"),
        (head("POST", "/v1/chat/completions", BEARER, "content-length: 99999999999"), 413, "request_too_large"),
    ],
)
def test_hostile_request_is_refused_in_openai_form(
    guarded: ScriptedServer, data: bytes, status: int, code: str
) -> None:
    """Also where no route has been reached, and what is no HTTP at all."""
    check_error(send(guarded, data), status, code)

    assert requests.get(f"{guarded.base_url}/v1/health/live", timeout=DEADLINE_S).ok


def test_what_a_refused_client_goes_on_to_send_is_dropped(guarded: ScriptedServer) -> None:
    """It reads the answer, and then the connection ends; a second request behind the first is not served."""
    with connect(guarded) as connection:
        connection.send(b"nonsense\r\n\r\n" + head("GET", "/v1/models", BEARER))
        check_error(connection.answer(), 400, "malformed_request")
        assert connection.rest() == b""


def test_answers_before_a_fault_are_given_first(guarded: ScriptedServer) -> None:
    """Requests sent at once, the last of them broken: those before it are answered, then the fault is told."""
    for broken in (b"nonsense\r\n\r\n", head("CONNECT", "a:1"), head("GET", "/", "x: " + "a" * 5000)):
        with connect(guarded) as connection:
            connection.send(post(ASK, BEARER) * 2 + broken)
            assert [connection.answer()[0], connection.answer()[0]] == [200, 200]
            assert connection.answer()[0] in {400, 431}
            assert connection.rest() == b""


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[ScriptedServer]:
    """Start a server that gives its clients little time."""
    little = {"NIM_HEADER_TIMEOUT_SECONDS": "5", "NIM_BODY_TIMEOUT_SECONDS": "5"}
    with start_scripted_server(tmp_path, {**GUARDS, **little}) as server:
        yield server


@pytest.mark.slow
def test_slow_clients_are_cut_off(impatient: ScriptedServer) -> None:
    """Who is silent, stops in the head, or drips headers, empty lines or a body holds no place for long."""
    starts = {
        "silent": b"",
        "half a head": b"GET /v1/models HTTP/1.1\r\nhost:",
        "dripping head": b"GET /v1/models HTTP/1.1\r\n",
        "empty lines": b"\r\n",
        "half a body": head("POST", "/v1/chat/completions", BEARER, "content-length: 100") + b"{",
        "body after the refusal": head("POST", "/v1/chat/completions", "content-length: 100000"),
    }
    drips = {"dripping head": b"x: y\r\n", "empty lines": b"\r\n", "body after the refusal": b" "}
    with contextlib.ExitStack() as stack:
        open_ones: dict[str, RawClient] = {}
        for name, data in starts.items():
            open_ones[name] = stack.enter_context(connect(impatient))
            open_ones[name].send(data)
        answers = dict.fromkeys(starts, b"")
        end = time.monotonic() + DEADLINE_S
        while open_ones and time.monotonic() < end:
            for connection in select.select(open_ones.values(), (), (), 0.3)[0]:
                name = next(name for name, one in open_ones.items() if one is connection)
                received = _receive(connection)
                answers[name] += received
                if not received:
                    del open_ones[name]
            for name in open_ones.keys() & drips.keys():
                with contextlib.suppress(OSError):
                    open_ones[name].send(drips[name])
    assert not open_ones
    statuses = {name: answer.split(b" ", 2)[1].decode() if answer else "none" for name, answer in answers.items()}
    assert statuses == {
        "silent": "none",
        "half a head": "408",
        "dripping head": "408",
        "empty lines": "408",
        "half a body": "408",
        "body after the refusal": "401",
    }


def _receive(connection: RawClient) -> bytes:
    try:
        return connection.socket.recv(65_536)
    except ConnectionError:
        return b""


def test_connection_serves_many_requests(guarded: ScriptedServer) -> None:
    """Requests one after another, and sent at once, are answered in order; unread bodies do not get in the way."""
    with connect(guarded) as connection:
        for _ in range(2):
            connection.send(post(ASK, BEARER) + head("GET", "/v1/models", BEARER))
            assert connection.answer()[0] == 200
            assert connection.answer()[0] == 200
            connection.send(post(b"x" * 5000))
            check_error(connection.answer(), 401, "invalid_api_key")


def test_wish_for_another_protocol_is_not_granted_and_does_no_harm(guarded: ScriptedServer) -> None:
    """Java's client asks for HTTP/2 in each request; its body is read all the same, and so is what follows."""
    wish = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")
    with connect(guarded) as connection:
        connection.send(post(ASK, BEARER, *wish) + head("GET", "/v1/models", BEARER, *wish))
        assert connection.answer()[2]["choices"][0]["message"]["content"] == "Hi"
        assert connection.answer()[0] == 200
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ASK), ASK)
    data = head("POST", "/v1/chat/completions", BEARER, "transfer-encoding: chunked", *wish) + chunks
    assert send(guarded, data)[2]["choices"][0]["message"]["content"] == "Hi"
    with connect(guarded) as connection:
        # The head alone first, the body in two parts later.
        data = post(ASK, BEARER, *wish)
        for part in (data[: -len(ASK)], ASK[:5], ASK[5:]):
            connection.send(part)
        assert connection.answer()[0] == 200


def test_more_connections_than_allowed_are_told_to_come_again(guarded: ScriptedServer) -> None:
    """The one over the limit gets a 503 that says when; when others have gone there is room again."""
    wanted = int(GUARDS["NIM_MAX_CONNECTIONS"]) + 16
    with contextlib.ExitStack() as stack:
        held: list[RawClient] = []
        refused: list[RawClient] = []

        def somebody_is_refused() -> bool:
            held.extend(stack.enter_context(connect(guarded)) for _ in range(wanted - len(held)))
            heard = {connection: _heard(connection) for connection in held}
            refused.extend(connection for connection, first in heard.items() if first == b"HTTP/1.1 503")
            # Those that were closed for their silence make room for others.
            held[:] = [connection for connection, first in heard.items() if first is None]
            return bool(refused)

        wait_until(somebody_is_refused, what="a refused connection")
        answer = refused[0].answer()
    check_error(answer, 503, "too_many_connections")
    assert int(answer[1]["retry-after"]) >= 1
    wait_until(lambda: _is_live(guarded), what="room")


def _heard(connection: RawClient) -> bytes | None:
    """Return how an answer to nothing begins: empty when the connection was closed, None while there is nothing."""
    try:
        return connection.socket.recv(12, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


def _is_live(server: ScriptedServer) -> bool:
    try:
        return requests.get(f"{server.base_url}/v1/health/live", timeout=DEADLINE_S).ok
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize("depth", [1, 8])
def test_depth_is_counted_exactly(depth: int) -> None:
    """A value with as many levels as allowed passes, one more does not; width does not matter."""
    value: object = ["leaf"] * 1000
    for _ in range(depth - 1):
        value = {"a": value, "b": [1, 2]} if depth > 1 else value

    check_depth(value, depth)
    with pytest.raises(DeepJsonError):
        check_depth([value], depth)
    check_depth("no container", 1)


def test_millions_of_values_are_refused_before_they_are_parsed(server: ScriptedServer) -> None:
    """A small body could take seconds and gigabytes; a long text with as many letters is no such body."""
    crowded = b'{"messages": [' + b"[]," * 400_000 + b"0]}"
    answer = server.post(data=crowded)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "json_too_many_values")
    lifted = crowded[:-2] + b', {"url": "data:image/png;base64,' + b"A" * 70_000 + b'"}]}'
    assert server.post(data=lifted).json()["error"]["code"] == "json_too_many_values"
    long = {"messages": [{"role": "user", "content": "a" * 600_000}]}
    assert server.post(long).json()["error"]["code"] == "context_length_exceeded"
