"""A constrained answer that has begun is gone on with under its grammar; what cannot be so is told."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from api.chat.errors import ChatError
from api.chat.request import (
    AssistantMessage,
    ChatRequest,
    ChoiceFormat,
    JsonSchemaFormat,
    RegexFormat,
    ResolvedImage,
    TextPart,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    UserMessage,
)
from api.gemma4.answer import Answer, AnswerCollector
from api.gemma4.parse import Parser
from api.gemma4.plan import GenerationPlan, make_plan
from api.gemma4.prompt import Prompt
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import Image
from tests.gemma4.matching import GrammarMatcher

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["name", "count"],
    "additionalProperties": False,
}
DOCUMENT = '{"name":"Zoë <b>","count":7}'
TOOL = ToolDefinition("book", "d", SCHEMA, strict=True)


def planned(
    tokenizer: Gemma4Tokenizer, last: AssistantMessage, **fields: Any
) -> tuple[ChatRequest, Prompt, GenerationPlan]:
    """Return the prompt and the plan of a request that goes on with its last message."""
    request = ChatRequest(
        "m", (UserMessage("x"), last), add_generation_prompt=False, continue_final_message=True, **fields
    )
    prompt = render(request, tokenizer)
    return request, prompt, make_plan(request, prompt, tokenizer, context_tokens=4096)


def taken(matcher: GrammarMatcher, prompt: Prompt, plan: GenerationPlan) -> bool:
    """Tell whether the engine would take what the answer has begun with."""
    begun = prompt.ids[len(prompt.ids) - plan.grammar_begun :]
    return bool(matcher.compile(plan.grammar or "").try_consume_tokens(list(begun)) == len(begun))


def go_on(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, seed: int, made: tuple[ChatRequest, Prompt, GenerationPlan]
) -> Answer | None:
    """Draw the rest of an answer; None when it does not end in time."""
    request, prompt, plan = made
    begun = prompt.ids[len(prompt.ids) - plan.grammar_begun :]
    ids = matcher.draw(plan.grammar or "", seed, begun=begun)
    if ids is None:
        return None
    options: dict[str, Any] = {"tools": request.tools, "open_call": prompt.open_call}
    parser = Parser(tokenizer, prompt.state, new_call_id=lambda: "c", **options)
    collector = AnswerCollector()
    collector.add(parser.feed(ids))
    collector.add(parser.finish(cut=False))
    return collector.answer()


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("length", range(1, len(DOCUMENT)))
def test_json_goes_on_where_it_was_cut(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, length: int, thinking: bool
) -> None:
    """Wherever the document is cut, the beginning and what is drawn after it are valid together."""
    begun = DOCUMENT[:length]
    made = planned(
        tokenizer, AssistantMessage(begun), thinking=Thinking(thinking), response_format=JsonSchemaFormat(SCHEMA)
    )
    assert tokenizer.decode_marked(made[1].ids[-made[2].grammar_begun :]) == begun
    answers = [answer for seed in range(3) if (answer := go_on(tokenizer, matcher, seed, made))]
    for answer in answers:
        jsonschema.validate(json.loads(begun + answer.content), SCHEMA)
    assert answers or length < 20


def test_a_whole_document_has_nothing_left_but_its_end(tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher) -> None:
    """Nothing is added to what is complete."""
    made = planned(tokenizer, AssistantMessage(DOCUMENT), response_format=JsonSchemaFormat(SCHEMA))
    answer = go_on(tokenizer, matcher, 1, made)
    assert answer is not None
    assert answer.content == ""


@pytest.mark.parametrize(
    "json_text", ["", "{", '{"count": 3, "na', '{"count": 3, "name": "Ad', '{"count": 3, "name": "Ada"']
)
def test_a_call_goes_on_where_it_was_cut(tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, json_text: str) -> None:
    """Arguments are held to the tool's schema also when some of them were there before."""
    call = ToolCall("c7", "book", open_arguments=json_text)
    made = planned(
        tokenizer,
        AssistantMessage(None, tool_calls=(call,)),
        tools=(TOOL,),
        tool_choice=ToolChoice(ToolMode.REQUIRED),
        parallel_tool_calls=False,
    )
    answer = next(answer for seed in range(20) if (answer := go_on(tokenizer, matcher, seed, made)))
    assert made[1].open_call is not None
    begun = json_text.replace(": ", ":").replace(", ", ",")
    jsonschema.validate(json.loads(begun + answer.calls[0].arguments), SCHEMA)


@pytest.mark.parametrize(
    ("last", "fields"),
    [
        (AssistantMessage("Sure: {"), {"response_format": JsonSchemaFormat(SCHEMA)}),
        (AssistantMessage('{"count"'), {"response_format": JsonSchemaFormat(SCHEMA)}),
        (AssistantMessage("ja"), {"response_format": ChoiceFormat(("yes", "no"))}),
        (AssistantMessage("12"), {"response_format": RegexFormat("[a-c]+")}),
        (AssistantMessage("Hm."), {"tools": (TOOL,), "tool_choice": ToolChoice(ToolMode.REQUIRED)}),
    ],
)
def test_a_beginning_that_does_not_fit_is_seen(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, last: AssistantMessage, fields: dict[str, Any]
) -> None:
    """The grammar refuses ids of a beginning that no valid answer has."""
    _, prompt, plan = planned(tokenizer, last, **fields)
    assert not taken(matcher, prompt, plan)


@pytest.mark.parametrize(
    "last",
    [
        AssistantMessage((ResolvedImage(Image(b"", 48, 48)), TextPart('{"na'))),
        AssistantMessage('{"name": <|channel>thought\nhm'),
    ],
)
def test_pictures_and_late_thoughts_cannot_be_gone_on_with(tokenizer: Gemma4Tokenizer, last: AssistantMessage) -> None:
    """A grammar speaks of text and calls; the error names the field."""
    with pytest.raises(ChatError) as caught:
        planned(tokenizer, last, response_format=JsonSchemaFormat(SCHEMA), thinking=Thinking(enabled=True))
    assert caught.value.param == "continue_final_message"


def test_without_a_constraint_nothing_is_taken(tokenizer: Gemma4Tokenizer) -> None:
    """A free answer has no grammar to go on with, and an empty beginning leaves a grammar at its start."""
    assert planned(tokenizer, AssistantMessage("Hello"))[2].grammar_begun == 0
    empty = planned(tokenizer, AssistantMessage(""), response_format=JsonSchemaFormat(SCHEMA))[2]
    assert empty.grammar
    assert empty.grammar_begun == 0
