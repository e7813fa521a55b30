"""``POST /v1/chat/completions/render`` and ``/parse``: what goes into the model, and what its output becomes.

For people who look into a prompt or a tool call. No engine is needed, and none is asked but for the names of adapters.
The routes exist only where diagnostics are enabled.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.chat.choice import new_call_id
from api.dialects.openai_chat import ChatCompletionRequest, parse_chat_request
from api.dialects.openai_diagnostics import (
    ParseRequest,
    RawOutput,
    parse_raw_output,
    read_deltas,
    read_message,
    rendered,
)
from api.dialects.schema import Fields
from api.gemma4.events import Event
from api.gemma4.parse import Parser
from api.gemma4.tokenizer import Gemma4Tokenizer
from api.http.body import read_json_object
from api.http.chat import ignored_headers
from api.http.server_state import ServerState, state_of

router = APIRouter(tags=["diagnostics"])

_JSON: Final = "application/json"


def _documented(model: type[Fields]) -> dict[str, Any]:
    """Return the OpenAPI entry of a body."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}


@router.post("/v1/chat/completions/render", openapi_extra=_documented(ChatCompletionRequest), response_class=Response)
async def render_chat_completion(request: Request) -> Response:
    """Show the prompt of a chat request as text and token ids, without inference."""
    state = state_of(request)
    body = await _read(request, state)
    call = parse_chat_request(body, served_names=state.served_names, lenient=state.options.lenient_requests)
    await state.models.adapter_of(call.request.model)
    prompt = await state.service.render(call.request)
    return Response(rendered(prompt), headers=ignored_headers(call), media_type=_JSON)


@router.post("/v1/chat/completions/parse", openapi_extra=_documented(ParseRequest), response_class=Response)
async def parse_chat_completion(request: Request) -> Response:
    """Show the message, or the deltas of a stream, that raw output of the model becomes."""
    state = state_of(request)
    body = await _read(request, state)
    # Outputs may be long: other requests are served meanwhile.
    content = await asyncio.to_thread(_parse, body, state.service.tokenizer)
    return Response(content, media_type=_JSON)


async def _read(request: Request, state: ServerState) -> dict[str, Any]:
    options = state.options
    return await read_json_object(
        request,
        max_bytes=options.max_body_bytes,
        timeout_s=options.body_timeout_s,
        max_depth=options.access.max_json_depth,
    )


def _parse(body: dict[str, Any], tokenizer: Gemma4Tokenizer) -> bytes:
    output = parse_raw_output(body, tokenizer)
    events = _events(output, tokenizer)
    return read_deltas(events) if output.stream else read_message(events)


def _events(output: RawOutput, tokenizer: Gemma4Tokenizer) -> list[Event]:
    """Parse one token at a time, as a stream of an engine that sends each token as soon as it is drawn."""
    parser = Parser(tokenizer, output.state, tools=output.tools, new_call_id=new_call_id)
    events: list[Event] = []
    for token_id in output.ids:
        events += parser.feed((token_id,))
    return events + parser.finish(cut=False)
