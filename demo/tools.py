"""Tools of one conversation: declarations, uses with arguments and results, and the answers drawn from results."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any, Final

from demo.tool_families import FAMILIES, Family, Value, make_family


@dataclass(frozen=True)
class Tool:
    """A family with its names fixed: what is declared in one conversation."""

    family: Family
    name: str
    keys: dict[str, str]
    """Parameter name of each slot."""
    declaration: dict[str, Any] = field(compare=False)


@dataclass(frozen=True)
class ToolUse:
    """One request for a tool, with the call it needs, a result, and the answer that follows from it."""

    tool: Tool
    values: dict[str, Value]
    result: str
    answer: str

    @property
    def arguments(self) -> dict[str, Value]:
        """Arguments under the declared parameter names."""
        return {self.tool.keys[slot]: value for slot, value in self.values.items()}


def make_tool(rng: random.Random, family: Family) -> Tool:
    """Fix the names of a family and write its declaration in OpenAI's form."""
    keys: dict[str, str] = {}
    properties: dict[str, Any] = {}
    for slot in family.slots:
        free = [key for key in slot.keys if key not in keys.values()]
        key = rng.choice(free)
        keys[slot.name] = key
        properties[key] = {"type": slot.type}
        if description := rng.choice(slot.descriptions):
            properties[key]["description"] = description
        if slot.enum:
            properties[key]["enum"] = list(slot.enum)
    name = rng.choice(family.names)
    function = {
        "name": name,
        "description": rng.choice(family.descriptions),
        "parameters": {"type": "object", "properties": properties, "required": list(properties)},
    }
    return Tool(family, name, keys, {"type": "function", "function": function})


def make_tools(rng: random.Random, count: int, made_up: float = 0.35) -> list[Tool]:
    """Declare ``count`` different tools; a share of them is made up for the occasion."""
    families = list(rng.sample(FAMILIES, min(count, len(FAMILIES))))
    for index in range(len(families)):
        if rng.random() < made_up:
            families[index] = make_family(rng, {noun for family in families for noun in family.nouns})
    tools: list[Tool] = []
    for family in families:
        tool = make_tool(rng, family)
        if all(tool.name != other.name for other in tools):
            tools.append(tool)
    return tools


def spell(value: Value) -> str:
    """Write a value as it stands in a sentence."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _fill(template: str, values: dict[str, Value]) -> str:
    return template.format(**{name: spell(value) for name, value in values.items()})


_WEATHER_KEYS: Final = (("temperature", "condition"), ("temp", "sky"), ("degrees", "weather"), ("temp_c", "conditions"), ("temperature", "description"), ("celsius", "state"))


def _format_result(rng: random.Random, fields: dict[str, Value], tool: Tool, values: dict[str, Value]) -> str:
    """Write a tool's result the way tools do: bare text, a sentence, or JSON with more or fewer fields."""
    if "degrees" in fields:
        kind = rng.random()
        if kind < 0.25:
            return rng.choice(("{degrees} degrees and {sky}", "{sky}, {degrees} degrees", "{degrees} C, {sky}", "{sky} {degrees}")).format(**fields)
        temperature, sky = rng.choice(_WEATHER_KEYS)
        pairs: list[tuple[str, Value]] = [(temperature, fields["degrees"]), (sky, fields["sky"])]
    else:
        if rng.random() < 0.45:
            return spell(fields["value"])
        pairs = [(rng.choice(("value", "result", "answer", tool.name.split("_")[-1], "data")), fields["value"])]
    if rng.random() < 0.4:
        slot, value = next(iter(values.items()))
        pairs.append((tool.keys[slot], value))
    rng.shuffle(pairs)
    separators = rng.choice(((", ", ": "), (", ", ": "), (",", ":")))
    return json.dumps(dict(pairs), separators=separators)


_ERRORS: Final = ("not found", "no connection", "timeout", "access denied", "unknown city", "bad request")


def make_use(rng: random.Random, tool: Tool, *, held_out: bool) -> ToolUse:
    """Make values for a tool, a result for them, and the answer."""
    family = tool.family
    values = {slot.name: slot.make(rng, held_out) for slot in family.slots}
    if rng.random() < 0.04:
        error = rng.choice(_ERRORS)
        return ToolUse(tool, values, json.dumps({"error": error}), f"The tool failed: {error}.")
    if family.result is None:
        return ToolUse(tool, values, rng.choice(family.done), _fill(family.answer, values))
    fields = family.result(rng, held_out)
    return ToolUse(tool, values, _format_result(rng, fields, tool, values), _fill(family.answer, {**values, **fields}))


def request_text(rng: random.Random, use: ToolUse) -> str:
    """Ask in ordinary words for one use."""
    return _fill(rng.choice(use.tool.family.requests), use.values)


def pair_request_text(rng: random.Random, first: ToolUse, second: ToolUse) -> str:
    """Ask in one sentence for two uses, of the same tool where its family has such a request, else of two tools."""
    family = first.tool.family
    if first.tool is second.tool and family.pair_requests:
        values = {**first.values, **{f"{name}2": value for name, value in second.values.items()}}
        return _fill(rng.choice(family.pair_requests), values)
    one, two = request_text(rng, first), request_text(rng, second)
    return rng.choice(("{} {}", "{} And {}", "First: {} Second: {}", "{} Also: {}")).format(one, two)
