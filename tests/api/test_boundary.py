"""The edges of a request that no well-behaved client reaches: unexpected faults, slow and vanishing clients."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.requests import Request

from api.errors import SlowBodyError
from api.http.body import ClientGoneError, read_json_object
from api.http.middleware import RequestScope

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/x", "headers": [(b"x-request-id", b"id-1")]}


def _serve(app: Any) -> list[dict[str, Any]]:
    """Run one request through the middleware and return what was sent."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    asyncio.run(RequestScope(app)(dict(SCOPE), receive, send))
    return sent


def test_unexpected_fault_is_a_500_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets the request id, the log gets the details."""

    async def fail(*_: object) -> None:
        message = "secret detail"
        raise ZeroDivisionError(message)

    with caplog.at_level(logging.ERROR):
        start, body = _serve(fail)
    assert start["status"] == 500
    assert dict(start["headers"])[b"x-request-id"] == b"id-1"
    error = json.loads(body["body"])["error"]
    assert error["code"] == "internal_error"
    assert "id-1" in error["message"]
    assert "secret" not in error["message"]
    assert "secret detail" in caplog.text


def test_fault_after_the_start_sends_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """Once a status is sent no second answer follows it."""

    async def fail(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    with caplog.at_level(logging.CRITICAL):
        sent = _serve(fail)
    assert [message["type"] for message in sent] == ["http.response.start"]


def test_body_that_does_not_arrive_is_a_408() -> None:
    """A client that stops sending is refused at the deadline."""

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    request = Request(dict(SCOPE), receive)
    with pytest.raises(SlowBodyError) as slow:
        asyncio.run(read_json_object(request, max_bytes=10, timeout_s=0.02))
    assert slow.value.status == 408


def test_client_that_leaves_while_sending_gets_no_answer() -> None:
    """Nothing is sent and nothing is logged as a fault when the client is gone."""

    async def read(scope: Any, receive: Any, _send: object) -> None:
        await read_json_object(Request(scope, receive), max_bytes=10, timeout_s=5)

    assert _serve(read) == []
    with pytest.raises(ClientGoneError):
        asyncio.run(read_json_object(Request(dict(SCOPE), _gone), max_bytes=10, timeout_s=5))


async def _gone() -> dict[str, Any]:
    return {"type": "http.disconnect"}
