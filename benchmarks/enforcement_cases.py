"""The cells of the enforcement matrix: what is asked, and what an answer to it must not do.

A case's ``fields`` are the request as the product takes it; ``peer_fields`` say the same in llama.cpp's own words where
they differ. Judging an answer needs only the message that came back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped] # its stubs are a package of their own

Fields = dict[str, Any]
Judge = Callable[[Fields], Iterable[str]]
"""Yields what is wrong with an assistant message, in a word each."""

WEATHER: Final[Fields] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 30},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
MOVE: Final[Fields] = {
    "type": "object",
    "properties": {
        "to": {"enum": ["north", "south"]},
        "steps": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 5},
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["to", "steps"],
    "additionalProperties": False,
}
PING: Final[Fields] = {"type": "object", "properties": {}, "additionalProperties": False}
PARAMETERS: Final = {"get_weather": WEATHER, "move": MOVE, "ping": PING}
ANSWER: Final[Fields] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "ok": {"type": "boolean"},
        "level": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["name", "ok", "level"],
    "additionalProperties": False,
}
PATTERN: Final = r"[a-c]{2}-[0-9]{2}"
CHOICES: Final = ["red", "green", "blue"]
GRAMMAR: Final = 'start: ("yes" | "no") ", " ("sure" | "maybe")'
GRAMMAR_WORDS: Final = {f"{a}, {b}" for a in ("yes", "no") for b in ("sure", "maybe")}
BUDGET: Final = 24


@dataclass(frozen=True, slots=True)
class Case:
    """One cell."""

    name: str
    fields: Fields
    judges: tuple[Judge, ...]
    peer_fields: Fields


def tools(names: Iterable[str] = PARAMETERS, *, strict: bool = False) -> list[Fields]:
    """Return declarations in OpenAI's form."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": f"The function {name}",
                "parameters": PARAMETERS[name],
                **({"strict": True} if strict else {}),
            },
        }
        for name in names
    ]


def _calls(message: Fields) -> list[Fields]:
    return [call["function"] for call in message.get("tool_calls") or ()]


def readable_calls(message: Fields) -> Iterable[str]:
    """Arguments must be JSON objects."""
    for call in _calls(message):
        if not isinstance(_json(call["arguments"]), dict):
            yield "arguments are no JSON object"


def valid_calls(message: Fields) -> Iterable[str]:
    """Calls must name declared tools, with arguments that obey their schemas."""
    for call in _calls(message):
        schema = PARAMETERS.get(call["name"])
        if schema is None:
            yield "undeclared tool"
        elif not _is_valid(_json(call["arguments"]), schema):
            yield "arguments break the schema"


def no_call(message: Fields) -> Iterable[str]:
    """There must be no call."""
    if _calls(message):
        yield "a call"


def some_call(message: Fields) -> Iterable[str]:
    """There must be a call."""
    if not _calls(message):
        yield "no call"


def one_call(message: Fields) -> Iterable[str]:
    """There may be one call at most."""
    if len(_calls(message)) > 1:
        yield "several calls"


def only(*names: str) -> Judge:
    """Make the judge that allows calls of these tools only."""

    def judge(message: Fields) -> Iterable[str]:
        if any(call["name"] not in names for call in _calls(message)):
            yield "a tool that is not allowed"

    return judge


def content(is_right: Callable[[str], bool]) -> Judge:
    """Make the judge that, where there is no call, wants the whole text right."""

    def judge(message: Fields) -> Iterable[str]:
        if not _calls(message) and not is_right(message.get("content") or ""):
            yield "text breaks the format"

    return judge


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return ...


def _is_valid(value: object, schema: Fields) -> bool:
    return value is not ... and jsonschema.Draft202012Validator(schema).is_valid(value)


_OBJECT = content(lambda text: isinstance(_json(text), dict))
_SCHEMA = content(lambda text: _is_valid(_json(text), ANSWER))
_REGEX = content(lambda text: re.fullmatch(PATTERN, text) is not None)
_CHOICE = content(lambda text: text in CHOICES)
_GRAMMAR = content(lambda text: text in GRAMMAR_WORDS)

_THINK: Fields = {"chat_template_kwargs": {"enable_thinking": True}}
_BUDGET: Fields = {**_THINK, "reasoning_budget_tokens": BUDGET}
_JSON_SCHEMA: Fields = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER, "strict": True}}
}
_JSON_OBJECT: Fields = {"response_format": {"type": "json_object"}}
_LARK = "%llguidance {}\n"
_PEER_CHOICE: Fields = {"grammar": _LARK + "start: " + " | ".join(f'"{word}"' for word in CHOICES)}
_NAMED: Fields = {"tool_choice": {"type": "function", "function": {"name": "move"}}}


def _allowed(mode: str) -> Fields:
    names = ("get_weather", "ping")
    listed = [{"type": "function", "function": {"name": name}} for name in names]
    return {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": listed}}}


def _outputs(**fields: object) -> Fields:
    return {"structured_outputs": fields}


def _case(name: str, fields: Fields, *judges: Judge, peer: Fields | None = None) -> Case:
    return Case(name, fields, judges, fields if peer is None else peer)


_LOOSE: Fields = {"tools": tools()}
_STRICT: Fields = {"tools": tools(strict=True)}
_REQUIRED: Fields = {**_LOOSE, "tool_choice": "required"}
_SINGLE: Fields = {"parallel_tool_calls": False}
_FEW: Fields = {"tools": tools(("get_weather", "ping"))}

CASES: Final = (
    _case("tool_choice none", {**_LOOSE, "tool_choice": "none"}, no_call),
    _case("tool_choice auto", _LOOSE, readable_calls),
    _case("auto, strict", _STRICT, valid_calls),
    _case("auto, strict, parallel_tool_calls false", {**_STRICT, **_SINGLE}, valid_calls, one_call),
    _case("required", _REQUIRED, some_call, valid_calls),
    _case("required, parallel_tool_calls false", {**_REQUIRED, **_SINGLE}, some_call, valid_calls, one_call),
    _case("named", {**_LOOSE, **_NAMED}, some_call, valid_calls, only("move")),
    _case(
        "allowed_tools auto, strict",
        {**_STRICT, **_allowed("auto")},
        valid_calls,
        only("get_weather", "ping"),
        peer={"tools": tools(("get_weather", "ping"), strict=True)},
    ),
    _case(
        "allowed_tools required",
        {**_LOOSE, **_allowed("required")},
        some_call,
        valid_calls,
        only("get_weather", "ping"),
        peer={**_FEW, "tool_choice": "required"},
    ),
    _case("required + thinking", {**_REQUIRED, **_THINK}, some_call, valid_calls),
    _case("named + thinking within a budget", {**_LOOSE, **_NAMED, **_BUDGET}, some_call, valid_calls, only("move")),
    _case("json_object", _JSON_OBJECT, _OBJECT),
    _case("json_schema", _JSON_SCHEMA, _SCHEMA),
    _case("json_object + thinking", {**_JSON_OBJECT, **_THINK}, _OBJECT),
    _case("json_schema + thinking", {**_JSON_SCHEMA, **_THINK}, _SCHEMA),
    _case("json_schema + tools, strict", {**_JSON_SCHEMA, **_STRICT}, _SCHEMA, valid_calls),
    _case("json_schema + tools, required", {**_JSON_SCHEMA, **_REQUIRED}, some_call, valid_calls),
    _case("json_schema + tools + thinking in a budget", {**_JSON_SCHEMA, **_STRICT, **_BUDGET}, _SCHEMA, valid_calls),
    _case("structured_outputs json", _outputs(json=ANSWER), _SCHEMA, peer={"json_schema": ANSWER}),
    _case(
        "structured_outputs regex",
        _outputs(regex=PATTERN),
        _REGEX,
        peer={"grammar": f"{_LARK}start: /{PATTERN}/"},
    ),
    _case("structured_outputs choice", _outputs(choice=CHOICES), _CHOICE, peer=_PEER_CHOICE),
    _case("structured_outputs grammar", _outputs(grammar=GRAMMAR), _GRAMMAR, peer={"grammar": _LARK + GRAMMAR}),
    _case("choice + thinking", {**_outputs(choice=CHOICES), **_THINK}, _CHOICE, peer={**_PEER_CHOICE, **_THINK}),
    _case(
        "regex + tools + thinking",
        {**_outputs(regex=PATTERN), **_STRICT, **_THINK},
        _REGEX,
        valid_calls,
        peer={"grammar": f"{_LARK}start: /{PATTERN}/", **_STRICT, **_THINK},
    ),
)
