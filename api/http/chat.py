"""``POST /v1/chat/completions``: one route for streamed and whole answers.

The answer object is the ASGI application of the response: it runs the request, watches for the client to leave, and
sends what the dialect's encoder makes of each step. A fault before the first token is an HTTP status; a later one is an
event in the stream.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.chat.answers import Step
from api.chat.service import Conversation
from api.dialects.openai_answer import DONE, AnswerHead, ChunkWriter, completion, error_event, usage_chunk
from api.dialects.openai_chat import ChatCall, ChatCompletionRequest, parse_chat_request
from api.http.body import read_json_object
from api.http.disconnect import run_until_gone
from api.http.errors import describe
from api.http.response_body import ResponseBody, response_body
from api.http.server_state import ServerState, state_of

router = APIRouter()

_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Reverse proxies that buffer would turn a stream into one late block.
    (b"x-accel-buffering", b"no"),
)
_IGNORED_HEADER: Final = "x-nim-ignored-fields"
_MAX_HEADER_BYTES: Final = 2000
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")

_REQUEST_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": ChatCompletionRequest.model_json_schema(ref_template="#/components/schemas/{model}")
            }
        },
    }
}


@router.post("/v1/chat/completions", openapi_extra=_REQUEST_BODY, tags=["chat"], response_class=Response)
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation, whole or as server-sent events."""
    state = state_of(request)
    state.check_accepting()
    with state.running():
        # A request that was begun before a stop is answered as those that were running.
        body = await read_json_object(
            request,
            max_bytes=state.options.max_body_bytes,
            timeout_s=state.options.body_timeout_s,
            max_depth=state.options.access.max_json_depth,
        )
        call = parse_chat_request(body, served_names=state.served_names, lenient=state.options.lenient_requests)
        adapter = await state.models.adapter_of(call.request.model)
    return ChatAnswer(state, call, adapter)


def ignored_headers(call: ChatCall) -> dict[str, str]:
    """Return the header that names the fields which were left out, if any were."""
    if not call.ignored:
        return {}
    # Field names are the caller's: nothing in them may end the header.
    return {_IGNORED_HEADER: _UNPRINTABLE.sub("?", ", ".join(call.ignored))[:_MAX_HEADER_BYTES]}


class ChatAnswer(Response):
    """The response to one chat request, made while it is sent."""

    def __init__(self, state: ServerState, call: ChatCall, adapter: str | None) -> None:
        super().__init__()
        self._adapter = adapter
        self._state = state
        self._call = call
        self._head = AnswerHead(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), adapter or state.served_names[0])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request until it ends or the client leaves, which closes the engine's sequences at once."""
        with self._state.running():
            await run_until_gone(receive, self._answer(scope, receive, send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        conversation = await self._state.service.prepare(self._call.request, self._head.answer_id, self._adapter)
        scope["state"]["access_notes"] = notes = {"prompt_tokens": conversation.prompt_tokens}
        try:
            if self._call.stream:
                await self._send_stream(scope, conversation, receive, send)
            else:
                await self._send_whole(send, conversation)
        finally:
            notes["completion_tokens"] = conversation.completion_tokens
            conversation.close()

    async def _send_whole(self, send: Send, conversation: Conversation) -> None:
        results = await conversation.results()
        body = completion(self._head, results, conversation.usage(), conversation.prompt_ids)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": self._with_ignored(headers)})
        await send({"type": "http.response.body", "body": body})

    async def _send_stream(self, scope: Scope, conversation: Conversation, receive: Receive, send: Send) -> None:
        with_usage = self._call.include_usage
        count = await conversation.begin()
        await send({"type": "http.response.start", "status": 200, "headers": self._with_ignored(_STREAM_HEADERS)})
        body = response_body(receive, send)
        shared: dict[str, Any] = {"with_usage": with_usage, "prompt_ids": conversation.prompt_ids}
        streams = [EventStream(body, ChunkWriter(self._head, index, **shared)) for index in range(count)]
        try:
            await conversation.run(streams, body.drain)
        except Exception as error:  # noqa: BLE001 - the request boundary: the status is sent, so the stream must say it
            failure = describe(error, scope["state"]["request_id"])
            end = error_event(failure.body()) + DONE
        else:
            end = (usage_chunk(self._head, conversation.usage()) if with_usage else b"") + DONE
        await body.finish(end)

    def _with_ignored(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [*headers, *((name.encode(), value.encode()) for name, value in ignored_headers(self._call).items())]


class EventStream:
    """Sends the steps of one choice as server-sent events; ``text`` is what nearly every token goes through."""

    def __init__(self, body: ResponseBody, writer: ChunkWriter) -> None:
        """Send the opening event."""
        self._body = body
        self._writer = writer
        self.text = body.writer_between(*writer.text_frame, writer.encode_text)
        body.write(writer.opening())

    def write(self, step: Step) -> bool:
        """Send a step; false when the client is behind."""
        chunk = self._writer.write(step)
        return self._body.write(chunk) if chunk else True

    def end(self, finish_reason: str) -> None:
        """Send the event that says why the choice has ended."""
        self._body.write(self._writer.closing(finish_reason))
