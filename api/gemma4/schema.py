"""JSON Schema as callers write it, to the few keywords that a declaration prints; what does not fit goes into words.

The notation prints type, description, properties, required, string enums, items and nullable. References are
resolved, ``anyOf`` with null and type lists become one type and ``nullable``, and limits, defaults, formats and other
enums are put into the description, so that the model is told everything. Enforcement is ``api.gemma4.grammar``'s,
from the schema itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from api.chat.request import JsonObject
from api.gemma4.errors import SchemaError

MAX_NODES = 20_000
"""Most schema nodes after references are resolved: bounds what a nest of references can grow to."""
MAX_TEXT = 100_000
"""Most characters in which one place of a schema tells of the alternatives below it."""
MAX_DEPTH = 32
"""Deepest nesting of a schema after references are resolved."""

_NOTES = {
    "const": "must be",
    "minimum": "minimum",
    "exclusiveMinimum": "greater than",
    "maximum": "maximum",
    "exclusiveMaximum": "less than",
    "multipleOf": "multiple of",
    "minLength": "minimum length",
    "maxLength": "maximum length",
    "pattern": "pattern",
    "format": "format",
    "minItems": "minimum items",
    "maxItems": "maximum items",
    "uniqueItems": "unique items",
    "minProperties": "minimum properties",
    "maxProperties": "maximum properties",
    "default": "default",
}
"""Keywords that are told in words, in the order in which they are told."""

_INDEX = re.compile(r"[0-9]{1,9}\Z")
"""An item of a list in a reference."""

_PLAIN_KEYS = frozenset({"type", "description", "properties", "required", "items"})
"""Keys of schemas that need no repair but in their children."""


def normalise(schema: JsonObject, *, param: str) -> dict[str, object]:
    """Return the root of a parameter schema with everything declared.

    Raises:
        SchemaError: when a reference leads nowhere or outside, or the schema is too large or too deep.
    """
    root = _Normaliser(schema, param).node(schema, depth=0, active=())
    return {**root, "type": root.get("type") or "object"}


def resolve_pointer(root: JsonObject, reference: object, *, param: str) -> object:
    """Follow a local reference (``#`` or ``#/a/b``).

    Raises:
        SchemaError: when it is no local reference or leads nowhere.
    """
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise SchemaError(f"`$ref` {str(reference)[:200]!r} is not a reference within the schema", param=param)
    node: object = root
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, list) and _INDEX.match(key) and int(key) < len(node):
            node = node[int(key)]
        else:
            raise SchemaError(f"`$ref` {reference[:200]!r} leads nowhere", param=param)
    return node


class _Normaliser:
    """One schema. ``active`` holds the references that are being resolved, to stop at recursion."""

    def __init__(self, root: JsonObject, param: str) -> None:
        self._root = root
        self._param = param
        self._nodes = 0

    def node(self, schema: object, *, depth: int, active: tuple[str, ...]) -> dict[str, object]:
        """Normalise one schema. The result is for reading: it may be the schema itself."""
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise SchemaError("the schema is too large or nests too deep", param=self._param)
        if isinstance(schema, dict) and schema.keys() <= _PLAIN_KEYS and isinstance(schema.get("type"), str):
            return self._plain(schema, depth, active)
        if not isinstance(schema, Mapping):
            return {}
        merged, active, recursion = self._merge(schema, active)
        if recursion:
            return {"type": "object", "description": recursion}
        out, notes = self._union(merged, depth, active)
        notes += _notes(out)
        self._children(out, depth, active)
        if notes:
            text = str(out.get("description") or "").rstrip()
            out["description"] = f"{text} ({'; '.join(notes)})" if text else "; ".join(notes)
        return out

    def _plain(self, schema: dict[str, object], depth: int, active: tuple[str, ...]) -> dict[str, object]:
        """Normalise what needs no repair but in its children: nearly all of what tools declare."""
        if _is_leaf(schema):
            return schema
        out = dict(schema)
        self._children(out, depth, active)
        return out

    def _merge(self, schema: JsonObject, active: tuple[str, ...]) -> tuple[dict[str, object], tuple[str, ...], str]:
        """Resolve ``$ref`` and fold ``allOf`` into the schema itself; the third value tells of a recursion."""
        merged: dict[str, object] = {
            k: v for k, v in schema.items() if k not in {"$ref", "allOf", "$defs", "definitions"}
        }
        pending = [schema["$ref"]] if "$ref" in schema else []
        parts = list(_sequence(schema.get("allOf")))
        while pending:
            reference = str(pending.pop())
            if reference in active:
                return {}, active, f"recursive: same form as {reference.rsplit('/', 1)[-1]}"
            active = (*active, reference)
            target = resolve_pointer(self._root, reference, param=self._param)
            if isinstance(target, Mapping):
                parts.append({k: v for k, v in target.items() if k != "$ref"})
                pending += [target["$ref"]] if "$ref" in target else []
        for part in parts:
            if isinstance(part, Mapping):
                inner, active, recursion = self._merge(part, active)
                if recursion:
                    return {}, active, recursion
                _fold(merged, inner)
        return merged, active, ""

    def _union(
        self, schema: dict[str, object], depth: int, active: tuple[str, ...]
    ) -> tuple[dict[str, object], list[str]]:
        """Turn alternatives and type lists into one type; what cannot be one is told in words."""
        notes: list[str] = []
        for keyword in ("anyOf", "oneOf"):
            options = [o for o in _sequence(schema.pop(keyword, None)) if isinstance(o, Mapping)]
            if not options:
                continue
            others = [o for o in options if o.get("type") != "null" and not ("const" in o and o["const"] is None)]
            if len(others) < len(options):
                schema["nullable"] = True
            if len(others) == 1:
                inner, active, recursion = self._merge(others[0], active)
                _fold(schema, {"type": "object", "description": recursion} if recursion else inner)
                deeper, more = self._union(schema, depth, active)
                schema, notes = deeper, notes + more
            elif others:
                notes.append(self._alternatives(schema, others, depth, active))
        kinds = schema.get("type")
        if isinstance(kinds, list):
            names = [str(kind) for kind in kinds if kind != "null"]
            if len(names) < len(kinds):
                schema["nullable"] = True
            schema["type"] = names[0] if names else "null"
            if len(names) > 1:
                notes.append(f"type: {' or '.join(names)}")
        return schema, notes

    def _alternatives(
        self, schema: dict[str, object], options: Sequence[JsonObject], depth: int, active: tuple[str, ...]
    ) -> str:
        """Declare the first alternative's type and tell of all of them."""
        forms = [self.node(option, depth=depth + 1, active=active) for option in options]
        schema.setdefault("type", forms[0].get("type") or "string")
        plain = [form for form in forms if set(form) <= {"type"}]
        if len(plain) == len(forms):
            return f"type: {' or '.join(str(form.get('type', 'any')) for form in forms)}"
        return self._bounded(f"one of: {' | '.join(json.dumps(form, ensure_ascii=False) for form in forms)}")

    def _bounded(self, text: str) -> str:
        """Return a text that tells of inner schemas; each level around it escapes it anew and may double it."""
        if len(text) > MAX_TEXT:
            raise SchemaError("the schema is too large or nests too deep", param=self._param)
        return text

    def _children(self, schema: dict[str, object], depth: int, active: tuple[str, ...]) -> None:
        """Normalise what the schema holds, and drop what the notation would misprint."""
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            self._nodes += len(properties)
            schema["properties"] = {
                str(name): child if _is_leaf(child) else self.node(child, depth=depth + 1, active=active)
                for name, child in properties.items()
            }
        elif schema.get("type") == "object":
            self._free_object(schema, depth, active)
        if isinstance(schema.get("items"), Mapping):
            schema["items"] = self._items(schema["items"], depth, active)
        if "required" in schema:
            schema["required"] = [name for name in _sequence(schema["required"]) if isinstance(name, str)]

    def _free_object(self, schema: dict[str, object], depth: int, active: tuple[str, ...]) -> None:
        """Tell the form of an open object's values: the notation would print the keyword as if it were a property."""
        values = schema.pop("additionalProperties", None)
        schema["properties"] = {}
        if isinstance(values, Mapping) and values:
            form = self._bounded(json.dumps(self.node(values, depth=depth + 1, active=active), ensure_ascii=False))
            text = str(schema.get("description") or "").rstrip()
            schema["description"] = f"{text} (values: {form})" if text else f"values: {form}"

    def _items(self, items: object, depth: int, active: tuple[str, ...]) -> dict[str, object]:
        """Normalise an array's items; their own scalar keywords are printed as they are."""
        kept = {}
        if isinstance(items, Mapping):
            kept = {key: value for key, value in items.items() if key in _NOTES or key == "enum"}
            items = {key: value for key, value in items.items() if key not in kept}
        return {**self.node(items, depth=depth + 1, active=active), **kept}


def _is_leaf(schema: object) -> TypeGuard[dict[str, object]]:
    """Tell whether a schema is a plain type, described or not, that is declared as it is."""
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    return isinstance(kind, str) and kind != "object" and len(schema) == 1 + ("description" in schema)


def _notes(schema: dict[str, object]) -> list[str]:
    """Take the keywords that the notation cannot print out of a schema, as words."""
    notes = []
    enum = schema.get("enum")
    if isinstance(enum, list) and schema.get("type") != "string":
        if enum and all(isinstance(value, str) for value in enum) and "type" not in schema:
            schema["type"] = "string"
        elif enum:
            notes.append(f"one of: {', '.join(_json(value) for value in enum)}")
            schema.setdefault("type", _type_of(enum[0]))
    if "const" in schema:
        schema.setdefault("type", _type_of(schema["const"]))
    for keyword, words in _NOTES.items():
        if keyword in schema:
            value = schema.pop(keyword)
            if value is not False:
                notes.append(words if value is True and keyword == "uniqueItems" else f"{words}: {_json(value)}")
    if "type" not in schema:
        schema.update(_implied_type(schema))
    return notes


def _implied_type(schema: JsonObject) -> dict[str, object]:
    """Return the type that other keywords imply."""
    if "properties" in schema or "required" in schema:
        return {"type": "object"}
    return {"type": "array"} if "items" in schema else {}


def _fold(into: dict[str, object], part: JsonObject) -> None:
    """Merge a part of an ``allOf`` (or a reference's target): properties and required are joined, the rest is kept."""
    for key, value in part.items():
        mine = into.get(key)
        if key == "properties" and isinstance(mine, Mapping) and isinstance(value, Mapping):
            into[key] = {**value, **mine}
        elif key == "required" and isinstance(mine, list) and isinstance(value, list):
            into[key] = [*mine, *(name for name in value if name not in mine)]
        else:
            into.setdefault(key, value)


def _type_of(value: object) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()
