"""Answers in OpenAI's chat form: whole ones, and streamed chunks written as bytes around precomputed frames.

A chunk costs one JSON encoding of its text and one join; nothing is validated or copied on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from api.chat.answers import ChoiceResult, LoggedToken, Step, TokenUsage
from api.gemma4.answer import Answer
from api.gemma4.events import CallDelta, CallStart, ContentDelta, Event, ReasoningDelta

_JsonObject = dict[str, Any]
DONE: Final = b"data: [DONE]\n\n"
_END: Final = b"\n\n"


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What every part of one answer repeats."""

    answer_id: str
    created: int
    model: str


class ChunkWriter:
    """Writes the server-sent events of one choice."""

    def __init__(
        self, head: AnswerHead, index: int, *, with_usage: bool, prompt_ids: Sequence[int] | None = None
    ) -> None:
        """Prepare the frames. ``with_usage`` puts the null usage into every chunk that the API prescribes then."""
        self._prompt_ids = prompt_ids
        self._front = (
            b'data: {"id":'
            + orjson.dumps(head.answer_id)
            + b',"object":"chat.completion.chunk","created":'
            + str(head.created).encode()
            + b',"model":'
            + orjson.dumps(head.model)
            + b',"choices":[{"index":'
            + str(index).encode()
            + b',"delta":'
        )
        self._tail = (b'}],"usage":null}' if with_usage else b"}]}") + _END
        self._plain_end = b',"logprobs":null,"finish_reason":null' + self._tail
        self.text_frame = (self._front + b'{"content":', b"}" + self._plain_end)
        """What stands before and after the text, as JSON, in a chunk that only adds to the answer's text."""

    @staticmethod
    def encode_text(text: str) -> bytes:
        """Return what belongs into ``text_frame``."""
        return orjson.dumps(text)

    def opening(self) -> bytes:
        """Return the first chunk, which names the role, and the prompt's ids where they were asked for."""
        end = self._plain_end
        if self._prompt_ids is not None:
            end = end.replace(b"}]", b'}],"prompt_token_ids":' + orjson.dumps(self._prompt_ids), 1)
        return self._front + b'{"role":"assistant","content":""}' + end

    def write(self, step: Step) -> bytes:
        """Return the chunks of one step; empty when there is nothing to say."""
        events = [event for event in step.events if _is_shown(event)]
        has_extras = bool(step.logprobs or step.token_ids)
        if not events:
            return self._front + b"{}" + self._end_with(step) if has_extras else b""
        # Probabilities belong to text, so they travel with the step's last piece of it.
        contents = (i for i, event in enumerate(events) if type(event) is ContentDelta)
        position = max(contents, default=len(events) - 1) if has_extras else -1
        return b"".join(
            self._front + _delta(event) + (self._end_with(step) if i == position else self._plain_end)
            for i, event in enumerate(events)
        )

    def closing(self, finish_reason: str) -> bytes:
        """Return the last chunk, which says why the answer ended."""
        return self._front + b'{},"logprobs":null,"finish_reason":' + orjson.dumps(finish_reason) + self._tail

    def _end_with(self, step: Step) -> bytes:
        logprobs = orjson.dumps(_logprobs(step.logprobs)) if step.logprobs else b"null"
        ids = b',"token_ids":' + orjson.dumps(step.token_ids) if step.token_ids else b""
        return b',"logprobs":' + logprobs + ids + b',"finish_reason":null' + self._tail


def usage_chunk(head: AnswerHead, usage: TokenUsage) -> bytes:
    """Return the chunk without choices that carries the usage of the whole stream."""
    return (
        b"data: "
        + orjson.dumps(
            {
                "id": head.answer_id,
                "object": "chat.completion.chunk",
                "created": head.created,
                "model": head.model,
                "choices": [],
                "usage": _usage(usage),
            }
        )
        + _END
    )


def error_event(body: _JsonObject) -> bytes:
    """Return the event that ends a stream that failed."""
    return b"data: " + orjson.dumps(body) + _END


def completion(
    head: AnswerHead, results: Sequence[ChoiceResult], usage: TokenUsage, prompt_ids: Sequence[int] | None = None
) -> bytes:
    """Return the body of an answer that is not streamed; ``prompt_ids`` where ids were asked for."""
    body = {
        "id": head.answer_id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [_choice(index, result) for index, result in enumerate(results)],
        "usage": _usage(usage),
    }
    return orjson.dumps(body if prompt_ids is None else {**body, "prompt_token_ids": prompt_ids})


def _choice(index: int, result: ChoiceResult) -> _JsonObject:
    logprobs = None if result.logprobs is None else _logprobs(result.logprobs)
    message = message_of(result.answer)
    choice = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": result.finish_reason}
    return choice if result.token_ids is None else {**choice, "token_ids": result.token_ids}


def message_of(answer: Answer) -> dict[str, Any]:
    """Return the assistant's message for an answer."""
    message: _JsonObject = {
        "role": "assistant",
        "content": answer.content if answer.content or not answer.calls else None,
        "refusal": None,
    }
    if answer.reasoning:
        message["reasoning"] = message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return message


def deltas_of(events: Sequence[Event]) -> list[orjson.Fragment]:
    """Return the delta of every event that has one, as JSON."""
    return [orjson.Fragment(_delta(event)) for event in events if _is_shown(event)]


def _is_shown(event: Event) -> bool:
    """Tell whether the dialect has a form for an event; the end of a call is only implied."""
    return isinstance(event, ContentDelta | ReasoningDelta | CallStart | CallDelta)


def _delta(event: Event) -> bytes:
    if isinstance(event, ContentDelta):
        return b'{"content":' + orjson.dumps(event.text) + b"}"
    if isinstance(event, ReasoningDelta):
        text = orjson.dumps(event.text)
        return b'{"reasoning":' + text + b',"reasoning_content":' + text + b"}"
    if isinstance(event, CallStart):
        return orjson.dumps(
            {
                "tool_calls": [
                    {
                        "index": event.index,
                        "id": event.call_id,
                        "type": "function",
                        "function": {"name": event.name, "arguments": ""},
                    }
                ]
            }
        )
    if isinstance(event, CallDelta):
        return orjson.dumps({"tool_calls": [{"index": event.index, "function": {"arguments": event.arguments}}]})
    return b"{}"


def _logprobs(tokens: Sequence[LoggedToken]) -> _JsonObject:
    return {
        "content": [
            _token(token.data, token.logprob) | {"top_logprobs": [_token(data, value) for data, value in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _token(data: bytes, logprob: float) -> _JsonObject:
    # OpenAI writes -9999 for what is practically impossible; JSON has no infinity.
    return {"token": data.decode(errors="replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}


def _usage(usage: TokenUsage) -> _JsonObject:
    prompt_details = {"cached_tokens": usage.cached_tokens, "image_tokens": usage.image_tokens}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
