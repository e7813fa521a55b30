"""Running the parser in tests: with counted call ids, in pieces of any size, to the message that comes out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from api.gemma4.answer import Answer, AnswerCollector
from api.gemma4.events import Event
from api.gemma4.parse import Parser
from api.gemma4.prompt import PromptState
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.gemma4.conftest import vectors
from tests.gemma4.openai_form import tool_definition

TOOLS = [tool_definition(tool) for tool in next(v for v in vectors("parse") if v["tools"])["tools"]]
NEW_TURN = PromptState.NEW_TURN


def parser(tokenizer: Gemma4Tokenizer, state: PromptState = NEW_TURN, **options: Any) -> Parser:
    """Return a parser with counted call ids."""
    numbers = itertools.count()
    return Parser(tokenizer, state, **{"tools": TOOLS, "new_call_id": lambda: f"c{next(numbers)}", **options})


def parse(
    reader: Parser, ids: Sequence[int], sizes: Callable[[], int] = lambda: 1, *, cut: bool = False
) -> list[Event]:
    """Return the events of ids fed in pieces of the given sizes."""
    events: list[Event] = []
    position = 0
    while position < len(ids):
        size = sizes()
        events += reader.feed(ids[position : position + size])
        position += size
    return events + reader.finish(cut=cut)


def gather(events: Sequence[Event]) -> Answer:
    """Return the message that events make."""
    collector = AnswerCollector()
    collector.add(events)
    return collector.answer()


def answer_to(tokenizer: Gemma4Tokenizer, text: str, state: PromptState = NEW_TURN, **options: Any) -> Answer:
    """Return the message that text with spelled markers becomes."""
    cut = options.pop("cut", False)
    return gather(parse(parser(tokenizer, state, **options), tokenizer.encode_marked(text), cut=cut))


def calls_of(answer: Answer) -> list[list[Any]]:
    """Return names and decoded arguments of an answer's calls."""
    return [[call.name, json.loads(call.arguments)] for call in answer.calls]
