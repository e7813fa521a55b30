"""The two ways in which a constrained value is written: Gemma 4's own notation for tool calls, and plain JSON.

Each knows how a string, a key and a literal look; what may stand where is ``api.gemma4.schema_grammar``'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from api.gemma4.formats import FORMATS
from api.gemma4.grammar import JsonLeaf, Literal, Node, Pattern, Repeat, Token, choice, sequence
from api.gemma4.native import NativeWriter, is_bare_key, sorted_items
from api.gemma4.regex import ANY_TEXT, search_regex

_BARE_KEY = r"[^\s:,{}\[\]()\"'<>=](?:[^:,{}\[\]()\"'<>=\n]*[^\s:,{}\[\]()\"'<>=])?"
"""The keys for which ``native.is_bare_key`` holds."""
_SPACE = Repeat(Literal(" "), 0, 1)


class Notation(Protocol):
    """How values are written."""

    comma: Node
    """What stands between members and items."""

    def string(self, schema: Mapping[str, Any], *, param: str) -> Node:
        """Return a string that satisfies the string keywords of a schema."""
        ...

    def key(self, name: str) -> Node:
        """Return a declared key with its colon."""
        ...

    def other_key(self, declared: tuple[str, ...], regex: str | None) -> Node:
        """Return any key but the declared ones, with its colon; ``regex`` matches whole keys."""
        ...

    def literal(self, value: object) -> Node:
        """Return exactly one value."""
        ...

    def members(self, properties: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Return properties in the order in which they are written."""
        ...


class NativeNotation:
    """Gemma 4's own: bare keys in sorted order, strings between delimiter tokens, no white space."""

    comma: Node = Literal(",")

    def __init__(self, quote: int) -> None:
        """Delimit strings with the token ``quote``."""
        self._quote = quote

    def string(self, schema: Mapping[str, Any], *, param: str) -> Node:
        """Return a delimited string; every text but the delimiter token is free in it."""
        return self._delimited(Pattern(string_regexes(schema, param=param)))

    def key(self, name: str) -> Node:
        """Return a key: bare, or delimited where bare it could be misread."""
        return Literal(f"{name}:") if is_bare_key(name) else sequence(self.literal(name), Literal(":"))

    def other_key(self, declared: tuple[str, ...], regex: str | None) -> Node:
        """Return any other key, bare or delimited."""
        regexes = (f"{_BARE_KEY}:",) if regex is None else (f"(?:{regex}):", f"{_BARE_KEY}:")
        bare = Pattern(regexes, tuple(f"{name}:" for name in declared))
        return choice((bare, sequence(self._delimited(Pattern((regex or ANY_TEXT,), declared)), Literal(":"))))

    def literal(self, value: object) -> Node:
        """Return a value as the notation's writer spells it."""
        writer = NativeWriter(self._quote)
        writer.value(value)
        return sequence(*(Literal(part) if isinstance(part, str) else Token.of(part) for part in writer.out))

    def members(self, properties: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Return properties sorted without regard to case, as declarations and earlier calls show them."""
        return sorted_items(properties)

    def _delimited(self, node: Node) -> Node:
        quote = Token.of(self._quote)
        return sequence(quote, node, quote)


class JsonNotation:
    """Plain JSON: keys in the schema's own order, at most one space after a comma or colon."""

    comma: Node = sequence(Literal(","), _SPACE)

    def string(self, schema: Mapping[str, Any], *, param: str) -> Node:
        """Return a JSON string; its content is what the keywords speak of, escapes decoded."""
        leaf: dict[str, Any] = {"type": "string"}
        regexes = [regex for regex in string_regexes(schema, param=param, lengths=False) if regex != ANY_TEXT]
        if regexes:
            # One pattern per leaf is what JSON Schema has; several must hold only for format plus pattern.
            leaf["pattern"] = f"^(?:{regexes[0]})$"
            if len(regexes) > 1:
                leaf["allOf"] = [{"type": "string", "pattern": f"^(?:{regex})$"} for regex in regexes[1:]]
        leaf.update({key: schema[key] for key in ("minLength", "maxLength") if key in schema})
        return JsonLeaf(json.dumps(leaf))

    def key(self, name: str) -> Node:
        """Return a quoted key."""
        return sequence(Literal(f"{_json_text(name)}:"), _SPACE)

    def other_key(self, declared: tuple[str, ...], regex: str | None) -> Node:
        """Return any other key that needs no escapes."""
        excluded = tuple(f'"{name}":' for name in declared)
        regexes = dict.fromkeys((f'"(?:{regex or _JSON_KEY})":', f'"(?:{_JSON_KEY})":'))
        body = Pattern(tuple(regexes), excluded)
        return sequence(body, _SPACE)

    def literal(self, value: object) -> Node:
        """Return a value as JSON, in pieces like any other."""
        if isinstance(value, Mapping):
            pairs = [sequence(self.key(str(name)), self.literal(item)) for name, item in value.items()]
            return sequence(Literal("{"), self._listed(pairs), Literal("}"))
        if isinstance(value, list):
            return sequence(Literal("["), self._listed([self.literal(item) for item in value]), Literal("]"))
        return Literal(_json_text(value))

    def members(self, properties: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Return properties as the schema lists them."""
        return list(properties.items())

    def _listed(self, nodes: list[Node]) -> Node:
        return sequence(*(sequence(self.comma, node) if index else node for index, node in enumerate(nodes)))


_JSON_KEY = r"[^\x00-\x1f\"\\]*"


def _json_text(value: object) -> str:
    """Write a scalar as the matcher's own JSON strings write it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def string_regexes(schema: Mapping[str, Any], *, param: str, lengths: bool = True) -> tuple[str, ...]:
    """Return the expressions that a string's whole content must all match.

    Raises:
        SchemaError: for a pattern that is not supported.
    """
    regexes: list[str] = []
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        regexes.append(search_regex(pattern, param=param))
    known = FORMATS.get(str(schema.get("format")))
    if known:
        regexes.append(known)
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if lengths and (low or high is not None):
        regexes.append(f"(?s:.){{{low},{'' if high is None else high}}}")
    return tuple(regexes) or (ANY_TEXT,)
