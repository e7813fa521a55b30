"""``/v1/health/live`` and ``/v1/health/ready``: is the process up, and can it answer now.

Ready asks the engine itself each time; while it cannot answer, the body tells the phase that the launcher reports.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.server_state import ServerState, state_of
from config.public_status import public_facts
from engine.errors import EngineError

router = APIRouter(tags=["health"])

_log = logging.getLogger("api.health")
_ENGINE_DEADLINE_S: Final = 2.0
_MAX_STATUS_BYTES: Final = 65_536
_RETRY_AFTER: Final = {"retry-after": "2", "retry-after-ms": "2000"}


@router.head("/v1/health/live", include_in_schema=False)
@router.get("/v1/health/live")
async def live() -> dict[str, str]:
    """Tell that the process answers, whether or not the engine does."""
    return {"object": "health.response", "message": "live", "status": "live"}


@router.head("/v1/health/ready", include_in_schema=False)
@router.get("/v1/health/ready", responses={503: {"description": "Not ready; the body tells the phase"}})
async def ready(request: Request) -> Response:
    """Tell whether requests would be answered now."""
    state = state_of(request)
    if state.is_draining:
        return _not_ready({"phase": "stopping"})
    if not state.is_behind_front and await _engine_is_healthy(state):
        body = {"object": "health.response", "message": "ready", "status": "ready"}
        return Response(orjson.dumps(body), media_type="application/json")
    loop = asyncio.get_running_loop()
    status = await loop.run_in_executor(None, read_status, state.status_path)
    return _not_ready(public_facts(status) if state.options.access.policy.asks_for_anything else status)


def read_status(path: Path | None) -> dict[str, Any]:
    """Return what the launcher last said about the start; at least a phase."""
    status: Any = None
    if path is not None:
        try:
            with path.open("rb") as file:
                status = orjson.loads(file.read(_MAX_STATUS_BYTES))
        except (OSError, orjson.JSONDecodeError):
            _log.debug("no readable status file", exc_info=True)
    if not isinstance(status, dict):
        return {"phase": "starting"}
    # The file may still say "ready" for the moment in which a crash has not been noticed.
    return status | {"phase": "engine_unavailable"} if status.get("phase") in {None, "ready"} else status


async def _engine_is_healthy(state: ServerState) -> bool:
    try:
        async with asyncio.timeout(_ENGINE_DEADLINE_S):
            return await state.engine.ready()
    except (TimeoutError, EngineError):
        return False


def _not_ready(status: dict[str, Any]) -> Response:
    phase = str(status.get("phase"))
    message = f"The service is not ready: {phase}."
    body = status | {
        "object": "health.response",
        "message": message,
        "status": "not_ready",
        "phase": phase,
        "error": {"message": message, "type": "service_unavailable", "param": None, "code": "not_ready"},
    }
    return Response(orjson.dumps(body, default=str), 503, headers=_RETRY_AFTER, media_type="application/json")
