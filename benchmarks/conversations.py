"""The long conversation that the benchmarks render: 40 messages with calls and results, and 20 declared tools."""

from __future__ import annotations

from typing import Any

TOOLS = 20
_TURNS = 9
"""Of four messages each; with the system line and the three at the end there are 40."""
_KINDS = ("string", "integer", "boolean")


def tools() -> list[dict[str, Any]]:
    """Return the declarations, in OpenAI's form: seven parameters each, one of them an object."""
    return [{"type": "function", "function": _function(number)} for number in range(TOOLS)]


def _function(number: int) -> dict[str, Any]:
    plain = {f"p{k}": {"type": _KINDS[k % 3], "description": f"The parameter number {k}"} for k in range(6)}
    nested = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "string"}}},
        "required": ["a"],
    }
    return {
        "name": f"tool_{number}",
        "description": "Does a useful thing with care.",
        "parameters": {"type": "object", "properties": {**plain, "opts": nested}, "required": ["p0", "p1"]},
    }


def messages() -> list[dict[str, Any]]:
    """Return the messages: a system line, then questions, each with a call, its result and an answer."""
    made: list[dict[str, Any]] = [{"role": "system", "content": "You are a helpful assistant."}]
    for number in range(_TURNS):
        made += _turn(number)
    return [
        *made,
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "You are welcome."},
        {"role": "user", "content": "And the day after?"},
    ]


def _turn(number: int) -> list[dict[str, Any]]:
    question = f"Question {number}: what is the weather in Paris today, and should I take an umbrella with me? "
    arguments = {"p0": "Paris", "p1": number, "opts": {"a": "x", "b": ["y", "z"]}}
    call = {"id": f"call{number}", "type": "function", "function": {"name": "tool_1", "arguments": arguments}}
    return [
        {"role": "user", "content": question * 3},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call{number}", "content": "It is sunny with a light breeze. " * 4},
        {"role": "assistant", "content": "It is sunny, so no umbrella is needed. " * 4},
    ]
