"""``/v1/capabilities``: what this server takes, so that a client need not find out by trying."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request

from api.dialects.openai_chat import UNSUPPORTED, WITHOUT_EFFECT, ChatCompletionRequest
from api.dialects.openai_sampling import MAX_STOPS, MAX_TOP_LOGPROBS
from api.http.options import ApiOptions
from api.http.server_state import state_of
from api.media.size import BUDGETS, DETAIL_BUDGETS

router = APIRouter(tags=["models"])

_ENGINE_DEADLINE_S: Final = 2.0


@router.get("/v1/capabilities")
async def capabilities(request: Request) -> dict[str, Any]:
    """List fields, limits and features.

    Raises:
        engine.errors.EngineUnavailableError: while the engine cannot tell its limits.
    """
    state = state_of(request)
    limits = await state.engine.limits()
    options = state.options
    return {
        "object": "capabilities",
        "models": [*state.served_names, *await state.models.last_adapters(_ENGINE_DEADLINE_S)],
        "engine": {
            "core": limits.core,
            "context_tokens": limits.context_tokens,
            "max_sequences": limits.max_sequences,
            "max_queued": limits.max_queued,
            "vision": limits.vision,
            "grammar": limits.grammar,
            "logprobs": limits.logprobs,
        },
        "chat_completions": {
            "fields": sorted(field.alias or name for name, field in ChatCompletionRequest.model_fields.items()),
            "unsupported_fields": dict(UNSUPPORTED),
            "fields_without_effect": list(WITHOUT_EFFECT),
            "unknown_fields": "ignored" if options.lenient_requests else "refused",
            "max_stop": MAX_STOPS,
            "max_top_logprobs": MAX_TOP_LOGPROBS,
        },
        "images": {
            "formats": ["jpeg", "png", "gif", "webp", "bmp"],
            "sources": _sources(options),
            "max_per_prompt": options.max_images if limits.vision else 0,
            "max_bytes": options.max_image_bytes,
            "token_budgets": list(BUDGETS),
            "default_tokens": options.image_tokens,
            "details": {**DETAIL_BUDGETS, "auto": options.image_tokens, "original": "smallest that does not shrink"},
        },
        "max_request_bytes": options.max_body_bytes,
        "diagnostics": options.diagnostics,
    }


def _sources(options: ApiOptions) -> list[str]:
    """List the forms in which a picture may come."""
    urls = ["http_url", "https_url"] if options.fetch_policy else []
    files = ["file_path", "file_url"] if options.local_media_path else []
    return ["data_url", "base64", *urls, *files]
