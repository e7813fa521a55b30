"""``/metrics`` and ``/v1/metrics``, and the middleware that gives each request its record. Nothing is done per token.

What is counted, and under which names, is ``api.telemetry``'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import to_api_error
from api.http.body import ClientGoneError
from api.http.metadata_facts import release
from api.http.server_state import ServerState, state_of
from api.telemetry.exposition import Scene, exposition
from api.telemetry.families import DIALECTS, RequestCount, count_progress, observe
from api.telemetry.record import RequestRecord, begin_record

router = APIRouter(tags=["metrics"])

CLIENT_GONE: Final = 499
"""The status that proxies log when a client leaves before the answer."""
_ENGINE_DEADLINE_S: Final = 2.0
_MAX_STATUS_BYTES: Final = 65_536
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_OTHER: Final = "other"
"""The label for paths and methods that nobody has defined: whoever tries them must not make new series."""
_PROGRESS_S: Final = 1.0
_counting: Final = RequestCount()
_running: Final[set[RequestRecord]] = set()
"""Records of the requests that this process is answering."""


@router.get("/metrics", response_class=Response)
@router.get("/v1/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return all metrics as text for Prometheus."""
    scene = await _scene(state_of(request))
    # The writing takes milliseconds: tokens are sent meanwhile.
    page, content_type = await asyncio.to_thread(exposition, scene, request.headers.get("accept", ""))
    return Response(page, headers={"content-type": content_type})


async def _scene(state: ServerState) -> Scene:
    return Scene(
        model=state.served_names[0],
        version=release(),
        profile_id=state.options.model.profile_id,
        reports=await state.engine.reports(_ENGINE_DEADLINE_S),
        status=await asyncio.to_thread(_status, state.status_path),
    )


def _status(path: Path | None) -> dict[str, Any]:
    """Return what the launcher last wrote; nothing when there is none."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            status = orjson.loads(file.read(_MAX_STATUS_BYTES))
    except (OSError, orjson.JSONDecodeError):
        return {}
    return status if isinstance(status, dict) else {}


@contextmanager
def counting_progress() -> Iterator[None]:
    """Count the tokens of running answers every second while the block lasts; an event loop must run."""
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def tick() -> None:
        count_progress(_running)
        timers[:] = [loop.call_later(_PROGRESS_S, tick)]

    tick()
    try:
        yield
    finally:
        timers[0].cancel()


class RequestMetrics:
    """ASGI middleware: one record per request, counted when its answer has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = begin_record()
        _running.add(record)
        record.request_id = str(scope.get("state", {}).get("request_id", ""))

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        with _counting:
            try:
                await self._app(scope, receive, send_noted)
            except Exception as error:
                _note_failure(record, error)
                raise
            finally:
                _running.discard(record)
                _finish(record, scope)


def _note_failure(record: RequestRecord, error: Exception) -> None:
    """Note an error that nobody has turned into an answer yet; whoever is around this one does."""
    if isinstance(error, ClientGoneError):
        record.status = record.status or CLIENT_GONE
        return
    known = to_api_error(error)
    record.error_code = str(known.code if known else "internal_error")
    record.status = record.status or (known.status if known else HTTPStatus.INTERNAL_SERVER_ERROR)


def _finish(record: RequestRecord, scope: Scope) -> None:
    record.status = record.status or CLIENT_GONE
    record.method = scope["method"] if scope["method"] in _METHODS else _OTHER
    # What is refused on the way has not been routed yet.
    path = scope["path"]
    record.route = str(getattr(scope.get("route"), "path", path if path in DIALECTS else _OTHER))
    if record.status >= HTTPStatus.BAD_REQUEST and record.status != CLIENT_GONE and not record.error_code:
        record.error_code = f"status_{record.status}"
    record.closed = time.perf_counter()
    observe(record)
    tracer = scope["app"].state.tracer if "app" in scope else None
    if tracer is not None:
        trace_id = tracer.trace(record, scope["headers"])
        if trace_id:
            scope["state"].setdefault("access_notes", {})["trace_id"] = trace_id
