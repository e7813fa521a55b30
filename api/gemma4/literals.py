"""Undelimited values of a call's arguments to JSON, with the caller's schema as the arbiter of what they are.

A bare ``00420`` is a string where the schema says string, a number keeps all its digits, Python's True and None are
understood, and what is nothing else is a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring

from api.gemma4.errors import SchemaError
from api.gemma4.schema import resolve_pointer

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
# What zeros belong to must be clear at once: there may be a hundred thousand of them, and no number in the end.
_NEAR_NUMBER = re.compile(r"[+-]?(?=\.?[0-9])0*((?:[1-9][0-9]*)?)(\.[0-9]*)?([eE][+-]?[0-9]+)?\Z")
_WORDS = {"true": "true", "True": "true", "false": "false", "False": "false"}
_NULLS = frozenset({"null", "None"})
_MOST_OPTIONS = 64
_MOST_NODES = 256
_DEEPEST = 8
_TYPE_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array"}


class SchemaView:
    """Read-only look-ups in one tool's parameter schema: the places below a place, and the types of one.

    A place is a schema; where alternatives disagree it is the choice of theirs.
    """

    def __init__(self, root: object) -> None:
        """Look at ``root``; anything but a mapping knows nothing."""
        self._root = root if isinstance(root, Mapping) else {}

    @property
    def root(self) -> object:
        """The schema of the arguments object."""
        return self._root

    def member(self, place: object, key: str) -> object:
        """Return the place of an object's member; None when unknown."""
        found = [
            properties[key]
            for option in self._options(place)
            if isinstance(properties := option.get("properties"), Mapping) and key in properties
        ]
        others = [option["additionalProperties"] for option in self._options(place) if "additionalProperties" in option]
        return _any_of(found or [other for other in others if other is not False])

    def item(self, place: object, index: int) -> object:
        """Return the place of an array's item; None when unknown."""
        found = []
        for option in self._options(place):
            first = option.get("prefixItems")
            if isinstance(first, list) and index < len(first):
                found.append(first[index])
            elif "items" in option:
                found.append(option["items"])
        return _any_of(found)

    def types(self, place: object) -> frozenset[str]:
        """Return the names of the types that a place may have; empty when they are not all known."""
        found = self._types(place, 0, iter(range(_MOST_NODES)))
        return frozenset() if found is None else frozenset(found)

    def _types(self, schema: object, depth: int, steps: Iterator[int]) -> set[str] | None:
        """Return the types of a schema, None when it does not limit them; ``steps`` bounds how many are looked at."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST or next(steps, None) is None:
            return None
        names = _own_types(schema)
        if names is None and "$ref" in schema:
            names = self._types(self._target(schema["$ref"]), depth + 1, steps)
        for keyword in ("anyOf", "oneOf", "allOf"):
            options = schema.get(keyword)
            if names is None and isinstance(options, list):
                kinds = [self._types(option, depth + 1, steps) for option in options[:_MOST_OPTIONS]]
                known = [kind for kind in kinds if kind is not None]
                if known and (keyword == "allOf" or len(known) == len(kinds)):
                    names = set().union(*known)
        if names is not None and schema.get("nullable") is True:
            names = names | {"null"}
        return names

    def _options(self, place: object) -> Iterator[Mapping[str, object]]:
        """Walk a schema, its reference and its alternatives; bounded, since schemas are hostile."""
        pending: list[object] = [place]
        for step, node in enumerate(pending):
            if step >= _MOST_OPTIONS:
                return
            if not isinstance(node, Mapping):
                continue
            yield node
            if "$ref" in node:
                pending.append(self._target(node["$ref"]))
            for keyword in ("anyOf", "oneOf", "allOf"):
                options = node.get(keyword)
                if isinstance(options, list):
                    pending += options[:_MOST_OPTIONS]

    def _target(self, reference: object) -> object:
        try:
            return resolve_pointer(self._root, reference, param="")
        except SchemaError:
            return None


def _any_of(schemas: list[object]) -> object:
    if len(schemas) > 1:
        return {"anyOf": schemas}
    return schemas[0] if schemas else None


def _own_types(schema: Mapping[str, object]) -> set[str] | None:
    """Return the types that a schema names itself, or that its listed values have."""
    kind = schema.get("type")
    names = {name.lower() for name in (kind if isinstance(kind, list) else [kind]) if isinstance(name, str)}
    if names:
        return names
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        return {_TYPE_NAMES.get(type(value), "object") for value in values}
    return None


def json_string(text: str) -> str:
    """Return a JSON string literal with non-ASCII characters kept."""
    return encode_basestring(text)


def bare_to_json(text: str, types: frozenset[str]) -> str:
    """Return the JSON of an undelimited value whose place may have these types (none: unknown)."""
    text = text.strip()
    if not text:
        return '""' if "string" in types else "null"
    if text in _NULLS:
        return "null"
    if text in _WORDS and _may_be(types, "boolean"):
        return _WORDS[text]
    if _may_be(types, "number", "integer"):
        if _NUMBER.match(text):
            return text
        if types and (near := _NEAR_NUMBER.match(text)):
            return _repaired(text, near)
    return json_string(text)


def is_literal(text: str, types: frozenset[str]) -> bool:
    """Tell whether an undelimited value is already a whole literal, so that a comma can only end it."""
    text = text.strip()
    return bool(text) and not bare_to_json(text, types).startswith('"')


def _may_be(types: frozenset[str], *names: str) -> bool:
    """Tell whether a place may hold one of these types: when it is known to, or nothing else is known of it."""
    return not types or any(name in types for name in names) or not (types & {"string"})


def _repaired(text: str, match: re.Match[str]) -> str:
    """Write a number as JSON wants it: no plus, no leading zeros, digits on both sides of the point."""
    whole, fraction, exponent = match.group(1) or "0", match.group(2) or "", match.group(3) or ""
    fraction = f"{fraction}0" if fraction == "." else fraction
    return f"{'-' if text.startswith('-') else ''}{whole}{fraction}{exponent}"
