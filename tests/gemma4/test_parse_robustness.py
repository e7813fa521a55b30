"""Outputs of any kind: every split of the ids gives the same message, nothing is lost, and time is linear."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.gemma4.events import CallDelta, CallEnd, CallStart, Event
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
