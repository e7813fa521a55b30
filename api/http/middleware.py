"""Around every request: its id, the access log line, and the answer of last resort. Raw ASGI, nothing per token.

The log names method, path, status, time, id and the name of the API key; never a prompt, a header or an address.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.auth import KEY_NAME
from api.http.body import ClientGoneError
from api.http.errors import describe

_log = logging.getLogger("api.access")
_CALLER_ID: Final = re.compile(rb"[A-Za-z0-9_.:\-]{1,128}")
_QUIET_PATHS: Final = ("/v1/health/", "/metrics", "/v1/metrics")
_QUIET_STATUSES: Final = (200, 503)
CLIENT_GONE: Final = 499
"""The status that proxies log when a client leaves before the answer."""


class RequestScope:
    """ASGI middleware; the outermost one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        header = (b"x-request-id", request_id.encode())
        status = 0
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientGoneError:
            _log.debug("request %s: the client left while sending", request_id)
        except Exception as error:  # noqa: BLE001 - the request boundary: logged by describe, answered, never re-raised
            failure = describe(error, request_id)
            if not status:
                status = failure.status
                await _send_error(send, failure.status, orjson.dumps(failure.body()), header)
        finally:
            _log_access(scope, status or CLIENT_GONE, time.perf_counter() - started, request_id)


def _request_id(scope: Scope) -> str:
    """Return the caller's id when it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _CALLER_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid.uuid4().hex


async def _send_error(send: Send, status: int, body: bytes, header: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), header]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _log_access(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    path = scope["path"]
    is_quiet = path.startswith(_QUIET_PATHS) and status in _QUIET_STATUSES
    level = logging.DEBUG if is_quiet else logging.INFO
    if _log.isEnabledFor(level):
        path = path[:200].encode("unicode_escape").decode()
        detail, took_ms = _detail(scope), round(seconds * 1000, 1)
        facts = {"method": scope["method"], "path": path, "status": status, "duration_ms": took_ms}
        shown = "".join(f" {name}={value}" for name, value in detail.items())
        extra = {"facts": {**facts, "request_id": request_id, **detail}}
        _log.log(level, "%s %s %d %.1fms id=%s%s", *facts.values(), request_id, shown, extra=extra)


def _detail(scope: Scope) -> dict[str, Any]:
    """Return the name of the request's key, and what the route noted about it, such as token counts."""
    state = scope["state"]
    named = {"key": state[KEY_NAME]} if KEY_NAME in state else {}
    return {**named, **(state.get("access_notes") or {})}
