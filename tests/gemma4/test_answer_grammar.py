"""Whole answers: thought, budget, calls and formats in one grammar, on the real vocabulary."""

from __future__ import annotations

from typing import Any

import pytest

from api.chat.request import (
    ChatRequest,
    ChoiceFormat,
    GrammarFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    SamplingOptions,
    Thinking,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    UserMessage,
)
from api.gemma4.answer_grammar import answer_grammar
from api.gemma4.errors import SchemaError
from api.gemma4.prompt import PromptState
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.gemma4.matching import GrammarMatcher

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ToolDefinition("weather", "d", CITY)
STRICT = ToolDefinition("strict", "d", {**CITY, "properties": {"city": {"enum": ["Rome", "Oslo"]}}}, strict=True)
PING = ToolDefinition("ping")
NAMED = {
    "none": ToolChoice(ToolMode.NONE),
    "auto": ToolChoice(),
    "required": ToolChoice(ToolMode.REQUIRED),
    "named": ToolChoice.named("weather"),
    "allowed": ToolChoice.allowed(("ping",)),
}
ROME = '<|tool_call>call:weather{city:<|"|>Rome<|"|>}<tool_call|>'
PINGED = "<|tool_call>call:ping{}<tool_call|>"
ENDS = {"text": "<turn|>", "call": "<|tool_response>"}
THOUGHT = "<|channel>thought\nLet me see: {1}\n<channel|>"
ANSWER = JsonSchemaFormat({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


def grammar(
    tokenizer: Gemma4Tokenizer,
    state: PromptState = PromptState.CLOSED_THOUGHT,
    budget: int | None = None,
    **fields: Any,
) -> str | None:
    """Return the grammar of a request's answer."""
    fields.setdefault("tools", (WEATHER, PING))
    thinking = Thinking(enabled=state is not PromptState.CLOSED_THOUGHT)
    request = ChatRequest("m", (UserMessage("x"),), thinking=thinking, **fields)
    return answer_grammar(request, state, tokenizer, budget=budget)


def test_a_free_answer_has_no_grammar(tokenizer: Gemma4Tokenizer) -> None:
    """Nothing is constrained where nothing was asked for: no cost, no change of the model's distribution."""
    assert grammar(tokenizer) is None
    assert grammar(tokenizer, PromptState.NEW_TURN) is None
    assert grammar(tokenizer, tools=(), parallel_tool_calls=False) is None


@pytest.mark.parametrize(
    ("choice", "accepted", "refused"),
    [
        (
            "required",
            [ROME, PINGED, ROME + PINGED + ROME],
            ["Hello", "", "Hm " + ROME, "<|tool_call>call:other{}<tool_call|>"],
        ),
        ("required once", [ROME, PINGED], [ROME + PINGED, "Hello"]),
        ("named", [ROME, ROME + ROME], [PINGED, "Hello", ROME + PINGED]),
        ("allowed", [PINGED, "Hello", "Hello " + PINGED], [ROME, PINGED + ROME]),
        ("auto once", [ROME, PINGED, "Hello", "Let me look. " + ROME], [ROME + PINGED, PINGED + PINGED]),
    ],
)
@pytest.mark.parametrize("thought", ["", THOUGHT])
def test_tool_choice_is_enforced(
    tokenizer: Gemma4Tokenizer,
    matcher: GrammarMatcher,
    choice: str,
    accepted: list[str],
    refused: list[str],
    thought: str,
) -> None:
    """Only the calls that the request allows are accepted, after a thought as without one."""
    state = PromptState.NEW_TURN if thought else PromptState.CLOSED_THOUGHT
    lark = grammar(
        tokenizer, state, tool_choice=NAMED[choice.partition(" ")[0]], parallel_tool_calls="once" not in choice
    )
    assert lark is not None
    for body, expected in [*((text, True) for text in accepted), *((text, False) for text in refused)]:
        end = ENDS["call" if "<|tool_call>" in body else "text"]
        assert matcher.accepts_text(lark, thought + body + end) is expected, body


def test_auto_with_a_strict_tool_constrains_calls_only(tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher) -> None:
    """Text stays free beside a strict tool; its calls obey the schema, and so do other tools' as far as they can."""
    lark = grammar(tokenizer, tools=(STRICT, WEATHER))
    assert lark is not None
    strict = '<|tool_call>call:strict{city:<|"|>CITY<|"|>}<tool_call|><|tool_response>'
    assert matcher.accepts_text(lark, "I like <b>Rome</b>: {1}, [2].<turn|>")
    assert matcher.accepts_text(lark, strict.replace("CITY", "Oslo"))
    assert matcher.accepts_text(lark, ROME + "<|tool_response>")
    assert not matcher.accepts_text(lark, strict.replace("CITY", "Paris"))


@pytest.mark.parametrize(
    ("wanted", "accepted", "refused"),
    [
        (
            ANSWER,
            ['{"n": 1}', '{"n":-20}'],
            ['{"n": "1"}', '```json\n{"n": 1}\n```', ' {"n": 1}', '{"n": 1} ', '{"n":  1}'],
        ),
        (JsonObjectFormat(), ['{"a": [1, {"b": null}], "c": "<b>"}', "{}"], ["[1]", "Hello", '{"a": }', '{"a"\n:1}']),
        (RegexFormat(r"\d{2}/\d{2}|never"), ["12/34", "never"], ["1/2", "12/345", "x12/34"]),
        (ChoiceFormat(("yes", "no", "yes, but")), ["yes", "no", "yes, but"], ["yes,", "maybe", ""]),
        (GrammarFormat('start: "a" rest\nrest: /[0-9]+/'), ["a1", "a42"], ["a", "1"]),
    ],
)
@pytest.mark.parametrize("thought", ["", THOUGHT])
def test_formats_are_enforced_beside_calls_and_thoughts(
    tokenizer: Gemma4Tokenizer,
    matcher: GrammarMatcher,
    wanted: Any,
    accepted: list[str],
    refused: list[str],
    thought: str,
) -> None:
    """An answer is in its format, or a call; a thought before it is free."""
    state = PromptState.NEW_TURN if thought else PromptState.CLOSED_THOUGHT
    lark = grammar(tokenizer, state, response_format=wanted)
    barred = grammar(tokenizer, state, response_format=wanted, tool_choice=NAMED["none"])
    assert lark is not None
    assert barred is not None
    for text in accepted:
        assert matcher.accepts_text(lark, f"{thought}{text}<turn|>"), text
        assert matcher.accepts_text(barred, f"{thought}{text}<turn|>"), text
    for text in refused:
        assert not matcher.accepts_text(lark, f"{thought}{text}<turn|>"), text
    assert matcher.accepts_text(lark, f"{thought}{ROME}<|tool_response>")
    assert not matcher.accepts_text(barred, f"{thought}{ROME}<|tool_response>")


@pytest.mark.parametrize("state", [PromptState.NEW_TURN, PromptState.OPEN_THOUGHT])
@pytest.mark.parametrize("wanted", [None, ANSWER])
def test_a_budget_bounds_the_thought(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, state: PromptState, wanted: JsonSchemaFormat | None
) -> None:
    """When the budget is spent only the close marker is left, and the answer follows in the same response."""
    fields = {} if wanted is None else {"response_format": wanted}
    lark = grammar(tokenizer, state, budget=4, **fields)
    assert lark is not None
    opening = "<|channel>thought\n" if state is PromptState.NEW_TURN else ""
    answer = '{"n": 1}<turn|>'
    within, beyond = f"{opening}1234<channel|>{answer}", f"{opening}12345<channel|>{answer}"
    assert matcher.accepts_text(lark, within)
    assert not matcher.accepts_text(lark, beyond)
    assert not matcher.accepts_text(lark, f"{opening}1234<channel|><|channel>thought\n123<channel|>{answer}")
    assert matcher.accepts_text(lark, answer) is (state is PromptState.NEW_TURN)
    assert matcher.accepts_text(lark, f"{opening}12<channel|>{ROME}<|tool_response>")


def test_a_budget_of_nothing_is_an_empty_thought(tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher) -> None:
    """With a budget of 0 a thought may be opened, and must be closed at once."""
    lark = grammar(tokenizer, PromptState.NEW_TURN, budget=0)
    assert lark is not None
    assert matcher.accepts_text(lark, "<|channel>thought\n<channel|>Hi<turn|>")
    assert not matcher.accepts_text(lark, "<|channel>thought\nx<channel|>Hi<turn|>")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": ToolChoice.named("other")}, "tool_choice"),
        ({"tool_choice": NAMED["required"], "tools": ()}, "tool_choice"),
        ({"response_format": RegexFormat("(")}, "structured_outputs.regex"),
        ({"response_format": ChoiceFormat(())}, "structured_outputs.choice"),
        ({"response_format": GrammarFormat("root ::= x")}, "structured_outputs.grammar"),
        ({"response_format": JsonSchemaFormat({"not": {}})}, "response_format.json_schema.schema"),
        (
            {"tools": (ToolDefinition("f", None, {"properties": {"a": {"not": {}}}}, strict=True),)},
            "tools.0.function.parameters",
        ),
    ],
)
def test_what_cannot_be_honoured_is_named(tokenizer: Gemma4Tokenizer, fields: dict[str, Any], param: str) -> None:
    """An impossible constraint is an error with the path of its field."""
    with pytest.raises(SchemaError) as caught:
        grammar(tokenizer, **fields)
    assert caught.value.param == param


def test_a_listed_text_that_spells_a_marker_is_refused(tokenizer: Gemma4Tokenizer) -> None:
    """The matcher would offer the marker itself where its spelling is forced: such a list is an error."""
    with pytest.raises(SchemaError, match="turn"):
        grammar(tokenizer, response_format=ChoiceFormat(("<|turn>", "x")))


@pytest.mark.parametrize("state", [PromptState.CLOSED_THOUGHT, PromptState.NEW_TURN, PromptState.OPEN_THOUGHT])
def test_bad_words_stand_nowhere(tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, state: PromptState) -> None:
    """However they are tokenised, in the thought and in the answer; calls stay possible, and their data is free."""
    text = grammar(tokenizer, state, sampling=SamplingOptions(bad_words=("damn", "a.b", "\n\n")))
    assert text is not None
    thought = {
        PromptState.NEW_TURN: "<|channel>thought\nHm: {}<channel|>",
        PromptState.OPEN_THOUGHT: "Hm: {}<channel|>",
    }
    fine, bad = ("dam n", "axb", "a\nb"), ("damn", "goddamned", "a.b", "x\n\ny")
    start = thought.get(state, "")
    for word in fine:
        assert matcher.accepts_text(text, f"{start.format(word)}Well {word}!<turn|>")
        assert matcher.accepts_text(text, f"{start.format(word)}{ROME}{PINGED}<|tool_response>")
        assert matcher.accepts_text(text, f"{start.format(word)}Look: {ROME}<|tool_response>")
    for word in bad:
        assert not matcher.accepts_text(text, f"{start.format('x')}Well {word}!<turn|>")
        if start:
            assert not matcher.accepts_text(text, f"{start.format(word)}Well!<turn|>")
    split = [token for part in (start.format("x"), "da", "mn") for token in tokenizer.encode_marked(part)]
    assert not matcher.accepts(text, [*split, tokenizer.special.turn_close])
    assert matcher.accepts_text(text, f"{start.format('x')}{ROME.replace('Rome', 'damn')}<|tool_response>")


def test_only_allowed_tokens_are_drawn(tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher) -> None:
    """Any number of them, in any order, and the end of the turn only if it is one of them."""
    yes, no = tokenizer.encode("yes")[0], tokenizer.encode("no")[0]
    close = tokenizer.special.turn_close
    text = grammar(tokenizer, sampling=SamplingOptions(allowed_token_ids=(yes, no, close)))
    assert text is not None
    for ids in ([close], [yes, close], [no, no, yes, close]):
        assert matcher.accepts(text, ids)
    assert not matcher.accepts(text, [yes, tokenizer.encode("maybe")[0], close])
    endless = matcher.compile(grammar(tokenizer, sampling=SamplingOptions(allowed_token_ids=(yes,))) or "")
    assert all(endless.consume_token(yes) for _ in range(5))
    assert not endless.consume_token(close)
