"""Lists of names and questions which of them is about what.

To answer, a model has to find a word that it is asked for and to copy what stands before it. Choosing among made-up tools
needs the same, but there it is one decision among many easy words, so here it is practised on its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from demo.tool_families import THINGS
from demo.tools import Tool

Message = dict[str, Any]
_Entry = TypeVar("_Entry")
_VERBS: Final = ("get", "find", "show", "read", "check", "count", "query", "write", "make", "search", "lookup", "set")
_SIZES: Final = (3, 4, 5, 6, 8)
_OPENINGS: Final = ("{}.", "Names: {}.", "The names are {}.")
_QUESTIONS: Final = ("Which one is for the {}?", "the {}", "Which one has the {}?", "Find the name with {}.", "What is the name for the {}?", "I need the {}.")
_TOOL_QUESTIONS: Final = (
    "Which tool has the {0}?",
    "Which tool is for the {0} of the {1}?",
    "What is the tool for the {0}?",
    "Which tool do I need for a {0}?",
    "{0}?",
    "the {0} of the {1}",
)


def list_exchanges(rng: random.Random) -> tuple[list[Message], list[str]]:
    """List names, each a verb and a thing, as words or as tools have them, and ask for the name of every thing.

    Returns:
        The messages and the names.
    """
    things = rng.sample(THINGS, rng.choice(_SIZES))
    joint = rng.choice((" ", "_"))
    names = {thing: f"{rng.choice(_VERBS)}{joint}{thing}" for thing in things}
    opening = rng.choice(_OPENINGS).format(", ".join(names.values()))
    to_system = rng.random() < 0.5
    messages = [message for thing in _repeated(rng, things) for message in _exchange(rng.choice(_QUESTIONS).format(thing), names[thing])]
    if to_system:
        messages.insert(0, {"role": "system", "content": opening})
    else:
        messages[0]["content"] = f"{opening} {messages[0]['content']}"
    return messages, list(names.values())


def tool_exchanges(rng: random.Random, tools: Sequence[Tool]) -> list[Message]:
    """Ask for the name of every one of some made-up tools."""
    return [message for tool in _repeated(rng, tools) for message in _exchange(rng.choice(_TOOL_QUESTIONS).format(*tool.family.nouns), tool.name)]


def _exchange(question: str, answer: str) -> tuple[Message, Message]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def _repeated(rng: random.Random, entries: Sequence[_Entry]) -> list[_Entry]:
    """Return all entries, two of them twice, in any order."""
    asked = [*entries, *rng.sample(entries, 2)]
    rng.shuffle(asked)
    return asked
