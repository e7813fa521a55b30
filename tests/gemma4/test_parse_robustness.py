"""Outputs of any kind: every split of the ids gives the same message, nothing is lost, and time is linear."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.gemma4.events import CallDelta, CallEnd, CallStart, ContentDelta, Event
from api.gemma4.literals import SchemaView, bare_to_json
from api.gemma4.prompt import PromptState
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.gemma4.parsing import answer_to, gather, parse, parser

FRAGMENTS = [
    *("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>", "<turn|>", "<|tool_response>", "<|turn>"),
    *(
        "call:",
        "get_weather",
        "write",
        "cfg",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "'",
        "\\",
        "city",
        "thought",
        "\n",
        " ",
    ),
    *("Paris", "New York", "1", "-2.5", "true", "None", "}}", "]}", "(", ")", "=", "é", "🌧", "<|image|>", "<", "00420"),
    *(
        '<|tool_call>call:get_weather{city:<|"|>',
        '<|"|>}<tool_call|>',
        "null",
        "\\n",
        "call:write{",
        "thought\n",
        "model\n",
    ),
]
OUTPUTS = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)
STATES = st.sampled_from(list(PromptState))


@given(output=OUTPUTS, state=STATES, cut=st.booleans(), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40))
@settings(deadline=None, max_examples=400)
def test_any_split_gives_the_same_message(
    tokenizer: Gemma4Tokenizer,
    output: str,
    state: PromptState,
    cut: bool,
    sizes: list[int],
) -> None:
    """However the ids are split, the joined events are the same; finished calls have valid JSON and stable indices."""
    ids = tokenizer.encode_marked(output)
    pieces = itertools.cycle(sizes)
    whole = parse(parser(tokenizer, state), ids, lambda: len(ids) + 1, cut=cut)
    split = parse(parser(tokenizer, state), ids, lambda: next(pieces), cut=cut)
    single = parse(parser(tokenizer, state), ids, cut=cut)
    assert gather(whole) == gather(split) == gather(single)
    for call in gather(single).calls:
        if call.complete:
            assert isinstance(json.loads(call.arguments, strict=False), dict)
    starts = [event for event in single if isinstance(event, CallStart)]
    assert [event.index for event in starts] == list(range(len(starts)))
    assert len({event.call_id for event in starts}) == len(starts)
    _check_call_order(single)


@given(output=OUTPUTS, state=STATES, stop=st.lists(st.sampled_from(["Paris", "true"]), max_size=1))
@settings(deadline=None, max_examples=400)
def test_the_short_way_says_what_the_long_way_says(
    tokenizer: Gemma4Tokenizer, output: str, state: PromptState, stop: list[str]
) -> None:
    """An id that the short way reads makes the very event that ``feed`` makes of it, and leaves the same state."""
    short, long = parser(tokenizer, state, stop=stop), parser(tokenizer, state, stop=stop)
    for token_id in tokenizer.encode_marked(output):
        text = short.plain_text(token_id)
        events = short.feed((token_id,)) if text is None else [ContentDelta(text)]
        assert events == long.feed((token_id,))
        assert (short.section, short.stopped) == (long.section, long.stopped)
    assert short.finish(cut=False) == long.finish(cut=False)
    assert short.reasoning_tokens == long.reasoning_tokens


def test_the_short_way_reads_prose(tokenizer: Gemma4Tokenizer) -> None:
    """Nearly every id of an answer takes the short way."""
    reader = parser(tokenizer, PromptState.CLOSED_THOUGHT)
    ids = tokenizer.encode("The harbour was quiet when the last ferry came in, and the keeper counted her lights.")
    reader.feed(ids[:1])
    taken = [reader.plain_text(token_id) is not None for token_id in ids[1:]]
    assert all(taken)


def _check_call_order(events: list[Event]) -> None:
    """Each call starts once, then grows, then ends, before the next."""
    open_index = -1
    for event in events:
        if isinstance(event, CallStart):
            open_index = event.index
        elif isinstance(event, CallDelta | CallEnd):
            assert event.index == open_index


@given(parts=st.lists(st.sampled_from(FRAGMENTS) | st.integers(0, 99), max_size=25), state=STATES, cut=st.booleans())
@settings(deadline=None, max_examples=400)
def test_no_text_is_lost(
    tokenizer: Gemma4Tokenizer,
    parts: list[str | int],
    state: PromptState,
    cut: bool,
) -> None:
    """Words of an output are found in its message, whatever surrounds them."""
    parts = [part for part in parts if part != "<|turn>"]  # what follows a turn header is a role, which is the format's
    words = [f"W{number}q" for number in parts if isinstance(number, int)]
    text = "".join(part if isinstance(part, str) else f"W{part}q" for part in parts)
    answer = answer_to(tokenizer, text, state, cut=cut)
    found = " ".join([answer.content, answer.reasoning, *(f"{c.name} {c.arguments}" for c in answer.calls)])
    assert [word for word in words if word not in found] == []


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "[",
        '"',
        "}",
        '<|"|>',
        "a,",
        "a:",
        "<|tool_call>call:f{",
        "<|channel>",
        "thought",
        " \n",
        "<tool_call|>x",
        "'\\",
    ],
)
@pytest.mark.parametrize(
    "start", ["", "<|tool_call>call:get_weather{", '<|tool_call>call:f{a:<|"|>', "<|tool_call>call:f{a:x"]
)
def test_hostile_outputs_take_linear_time(tokenizer: Gemma4Tokenizer, start: str, unit: str) -> None:
    """Four times the hostile output takes far less than sixteen times as long, as it would if time were quadratic.

    A busy machine can spoil one measurement, so the best of several counts; quadratic time fails all of them.
    """

    def seconds(count: int) -> float:
        ids = tokenizer.encode_marked(start) + tokenizer.encode_marked(unit) * count
        begin = time.process_time()
        parse(parser(tokenizer), ids, lambda: 64)
        return time.process_time() - begin

    assert any(seconds(12_000) < min(seconds(3_000) for _ in range(2)) * 4 * 3 + 0.02 for _ in range(5))


def test_a_schema_that_refers_to_itself_in_many_ways_costs_little() -> None:
    """Alternatives of alternatives without end are given up, not counted; what is near is found."""
    hostile = {keyword: [{"$ref": "#/$defs/x"}] * 64 for keyword in ("anyOf", "oneOf", "allOf")}
    view = SchemaView({"$defs": {"x": hostile, "y": {"anyOf": [{"type": "string"}, {"type": "null"}]}}})
    assert view.types({"$ref": "#/$defs/x"}) == frozenset()
    assert view.types({"$ref": "#/$defs/y"}) == {"string", "null"}


@pytest.mark.parametrize("sign", ["", "-", "."])
def test_what_is_nearly_a_number_takes_linear_time(sign: str) -> None:
    """So many zeros and no number in the end: tried out in every way to share them, it would take days."""
    text = f"{sign}{'0' * 200_000}x"
    assert bare_to_json(text, frozenset({"integer"})) == f'"{text}"'
    assert bare_to_json(f"-{'0' * 200_000}7", frozenset({"integer"})) == "-7"
