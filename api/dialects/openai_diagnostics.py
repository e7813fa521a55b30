"""The request and the answers of the diagnostic routes: prompts that are shown, raw output that is read.

What a chat request is, and the forms of messages and deltas, are the chat routes' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from api.chat.request import ToolDefinition
from api.dialects.openai_answer import deltas_of, message_of
from api.dialects.openai_tools import ToolInputDefinition, to_tools
from api.dialects.schema import Fields, parse_fields
from api.errors import BadRequestError
from api.gemma4.answer import AnswerCollector, finish_name
from api.gemma4.events import Event
from api.gemma4.prompt import Prompt, PromptState
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import FinishReason


class ParseRequest(Fields):
    """The body of ``POST /v1/chat/completions/parse``: exactly one of ``text`` and ``token_ids``."""

    text: str | None = None
    token_ids: list[Annotated[int, Field(ge=0)]] | None = None
    prompt_state: Literal["new_turn", "open_thought", "closed_thought"] | None = None
    tools: list[ToolInputDefinition] | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class RawOutput:
    """What a model wrote, where its prompt had ended, and whether its deltas are wanted or the whole message."""

    ids: tuple[int, ...]
    state: PromptState
    tools: tuple[ToolDefinition, ...]
    stream: bool


def parse_raw_output(body: dict[str, Any], tokenizer: Gemma4Tokenizer) -> RawOutput:
    """Validate and translate a decoded body; unknown fields are refused, whatever chat requests may hold.

    Raises:
        BadRequestError: naming the field at fault.
    """
    fields, _ = parse_fields(ParseRequest, body, lenient=False, unsupported={})
    return RawOutput(
        ids=_ids(fields, tokenizer),
        state=PromptState(fields.prompt_state or PromptState.NEW_TURN),
        tools=to_tools(fields.tools),
        stream=bool(fields.stream),
    )


def rendered(prompt: Prompt) -> bytes:
    """Return the body that shows a prompt."""
    return orjson.dumps(
        {"prompt": prompt.text, "token_ids": prompt.ids, "state": prompt.state.value, "count": len(prompt.ids)}
    )


def read_message(events: Sequence[Event]) -> bytes:
    """Return the body that shows the message that events make."""
    collector = AnswerCollector()
    collector.add(events)
    return orjson.dumps({"message": message_of(collector.answer()), "finish_reason": _finish_reason(events)})


def read_deltas(events: Sequence[Event]) -> bytes:
    """Return the body that shows the deltas that events make, in order."""
    return orjson.dumps({"deltas": deltas_of(events), "finish_reason": _finish_reason(events)})


def _finish_reason(events: Sequence[Event]) -> str:
    # Raw output has been written to its end; a limit that cut it is not known here.
    return finish_name(FinishReason.STOP, events)


def _ids(fields: ParseRequest, tokenizer: Gemma4Tokenizer) -> tuple[int, ...]:
    if fields.text is not None and fields.token_ids is not None:
        raise BadRequestError("Give either `text` or `token_ids`, not both.", param="token_ids")
    if fields.text is not None:
        return tokenizer.encode_marked(fields.text)
    if fields.token_ids is None:
        raise BadRequestError("text: Field required, or `token_ids`.", param="text", code="missing_required_parameter")
    for index, token_id in enumerate(fields.token_ids):
        if token_id >= tokenizer.size:
            raise BadRequestError(f"{token_id} is not a token of this model.", param=f"token_ids.{index}")
    return tuple(fields.token_ids)
