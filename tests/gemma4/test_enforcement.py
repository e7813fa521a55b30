"""The enforcement matrix: whatever a random model draws under a request's grammar becomes an answer that it allows."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.chat.request import (
    AssistantMessage,
    ChatRequest,
    ChoiceFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    OutputLimits,
    RegexFormat,
    ResponseFormat,
    TextFormat,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMessage,
    ToolMode,
    UserMessage,
)
from api.gemma4.answer import Answer, AnswerCollector
from api.gemma4.parse import Parser
from api.gemma4.plan import make_plan
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.gemma4.matching import GrammarMatcher

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
MOVE: dict[str, Any] = {
    "type": "object",
    "properties": {"to": {"enum": ["north", "south"]}, "steps": {"type": "array", "items": {"type": "integer"}}},
    "required": ["to", "steps"],
}
TOOLS = (
    ToolDefinition("weather", "The weather.", CITY, strict=True),
    ToolDefinition("move", "Moves.", MOVE),
    ToolDefinition("ping"),
)
ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
    "additionalProperties": False,
}
FORMATS: list[ResponseFormat] = [
    TextFormat(),
    JsonObjectFormat(),
    JsonSchemaFormat(ANSWER),
    RegexFormat(r"[a-c]{2}-\d+"),
    ChoiceFormat(("red", "green", "red and green")),
]
CHOICES = [
    ToolChoice(ToolMode.NONE),
    ToolChoice(),
    ToolChoice(ToolMode.REQUIRED),
    ToolChoice.named("move"),
    ToolChoice.allowed(("weather", "ping")),
    ToolChoice.allowed(("ping",), required=True),
]
ASKED: tuple[Message, ...] = (UserMessage("Go on."),)
AFTER_RESULT: tuple[Message, ...] = (
    *ASKED,
    AssistantMessage(None, tool_calls=(ToolCall("1", "ping"),)),
    ToolMessage("pong", "1"),
)
SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=150)


@st.composite
def chat_requests(draw: st.DrawFn) -> ChatRequest:
    """Any cell of the matrix."""
    enabled = draw(st.booleans())
    budget = draw(st.sampled_from([None, 0, 5])) if enabled else None
    return ChatRequest(
        "m",
        draw(st.sampled_from([ASKED, AFTER_RESULT])),
        tools=TOOLS,
        tool_choice=draw(st.sampled_from(CHOICES)),
        parallel_tool_calls=draw(st.booleans()),
        response_format=draw(st.sampled_from(FORMATS)),
        thinking=Thinking(enabled=enabled, budget=budget),
        limits=OutputLimits(max_tokens=500),
    )


def check_calls(request: ChatRequest, answer: Answer) -> None:
    """Check names, count and arguments of the calls."""
    choice = request.tool_choice
    schemas = {tool.name: tool.parameters or {"type": "object", "additionalProperties": False} for tool in TOOLS}
    for call in answer.calls:
        assert call.complete
        assert choice.names is None or call.name in choice.names
        jsonschema.validate(json.loads(call.arguments, strict=False), schemas[call.name])
    assert not answer.calls or choice.mode is not ToolMode.NONE
    assert request.parallel_tool_calls or len(answer.calls) <= 1
    if choice.mode is ToolMode.REQUIRED:
        assert answer.calls
        assert not answer.content


def check_content(wanted: ResponseFormat, content: str) -> None:
    """Check that an answer is in its format."""
    if isinstance(wanted, JsonObjectFormat | JsonSchemaFormat):
        value = json.loads(content)
        jsonschema.validate(value, wanted.schema if isinstance(wanted, JsonSchemaFormat) else {"type": "object"})
    elif isinstance(wanted, RegexFormat):
        assert content[2] == "-"
        assert set(content[:2]) <= set("abc")
        assert content[3:].isdigit()
    elif isinstance(wanted, ChoiceFormat):
        assert content in wanted.choices


@pytest.mark.slow
@given(request=chat_requests(), seed=st.integers(0, 2**32))
@SETTINGS
def test_every_answer_is_one_that_the_request_allows(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, request: ChatRequest, seed: int
) -> None:
    """In every cell of tool choice, format, thinking and state, drawn answers parse to what was asked for."""
    prompt = render(request, tokenizer)
    plan = make_plan(request, prompt, tokenizer, context_tokens=4096)
    if plan.grammar is None:
        return
    ids = matcher.draw(plan.grammar, seed)
    if ids is None:
        return
    assert ids[-1] in plan.stop_ids
    numbers = itertools.count()
    parser = Parser(
        tokenizer,
        prompt.state,
        new_call_id=lambda: f"c{next(numbers)}",
        tools=request.tools,
        stop=plan.stop,
        tool_calls=plan.tool_calls,
    )
    collector = AnswerCollector()
    collector.add(parser.feed(ids))
    collector.add(parser.finish(cut=False))
    answer = collector.answer()
    if request.thinking.budget is not None:
        markers = 3  # both markers and the label with its newline, which is two tokens
        assert parser.reasoning_tokens <= request.thinking.budget + markers + 1
    is_free = isinstance(request.response_format, TextFormat)
    check_calls(request, answer)
    if answer.content and not (is_free or answer.calls):
        check_content(request.response_format, answer.content)
    assert is_free or answer.content or answer.calls
