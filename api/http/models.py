"""``/v1/models``: the names under which the one model is served, and the LoRA adapters beside it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request

from api.errors import ModelNotFoundError
from api.http.server_state import ServerState, state_of
from engine.errors import EngineError

router = APIRouter(prefix="/v1/models", tags=["models"])

_ENGINE_DEADLINE_S: Final = 2.0


@router.get("")
async def list_models(request: Request) -> dict[str, Any]:
    """List the served names, then the adapters that the engine has now."""
    state = state_of(request)
    context = await _context_tokens(state)
    adapters = await state.models.last_adapters(_ENGINE_DEADLINE_S)
    return {"object": "list", "data": [_describe(state, name, context) for name in (*state.served_names, *adapters)]}


# Model names hold slashes, so the name is the rest of the path.
@router.get("/{name:path}")
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """Describe one served name or adapter.

    Raises:
        ModelNotFoundError: for any other name.
        engine.errors.EngineUnavailableError: it may be an adapter's, and the engine cannot be asked.
    """
    state = state_of(request)
    if name not in state.served_names and name not in await state.models.adapters():
        raise ModelNotFoundError(name, param=None)
    return _describe(state, name, await _context_tokens(state))


def _describe(state: ServerState, name: str, context_tokens: int | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": state.created,
        "owned_by": "gemma4-nim",
        "root": state.served_names[0],
        # Who asks for a model's family finds the base of an adapter here.
        "parent": None if name in state.served_names else state.served_names[0],
        "max_model_len": context_tokens,
        "permission": [],
    }


async def _context_tokens(state: ServerState) -> int | None:
    """Return the engine's context; None while it cannot be asked."""
    try:
        async with asyncio.timeout(_ENGINE_DEADLINE_S):
            return (await state.engine.limits()).context_tokens
    except (TimeoutError, EngineError):
        return None
