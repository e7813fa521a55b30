"""``allOf``, references and alternatives of a JSON Schema, folded into one schema without them.

Two schemas that must both hold become one whose keywords are the stricter of each pair. What cannot be folded is an
error that names the keyword.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from api.gemma4.errors import SchemaError
from api.gemma4.schema_form import well_formed

Schema = dict[str, Any]

ALL_TYPES = ("object", "array", "string", "number", "boolean", "null")
"""The types of JSON; an integer is a number."""

_LOWER_BOUNDS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER_BOUNDS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "example", "$schema", "$id", "id", "$comment", "$anchor"),
        *("deprecated", "readOnly", "writeOnly", "$defs", "definitions", "contentEncoding", "contentMediaType"),
    }
)


def constraints(schema: Mapping[str, Any], *, param: str) -> Schema:
    """Return a schema without the keywords that constrain nothing.

    Raises:
        SchemaError: naming a keyword whose value is of the wrong kind.
    """
    kept = {key: value for key, value in schema.items() if key not in _ANNOTATIONS and not key.startswith("x-")}
    return well_formed(kept, param=param)


def merge(left: Schema, right: Schema, *, param: str) -> Schema:
    """Return one schema for two that must both hold.

    Raises:
        SchemaError: naming a keyword that cannot be folded.
    """
    merged = dict(left)
    for keyword, value in right.items():
        if keyword not in merged:
            merged[keyword] = value
        elif merged[keyword] != value:
            merged[keyword] = _fold(keyword, merged[keyword], value, param)
    _close_properties(merged, left, right)
    return merged


def _fold(keyword: str, mine: Any, other: Any, param: str) -> Any:
    """Return what holds when both values of a keyword must."""
    if keyword in _LOWER_BOUNDS:
        return max(mine, other)
    if keyword in _UPPER_BOUNDS:
        return min(mine, other)
    folders: dict[str, Callable[[Any, Any, str], Any]] = {
        "type": _fold_types,
        "required": lambda a, b, _: [*a, *(name for name in b if name not in a)],
        "enum": lambda a, b, _: [value for value in a if value in b],
        "properties": lambda a, b, _: {**a, **b, **{name: {"allOf": [a[name], b[name]]} for name in a if name in b}},
        "items": lambda a, b, _: {"allOf": [a, b]},
        "additionalProperties": lambda a, b, _: False if False in (a, b) else {"allOf": [a, b]},
        "nullable": lambda a, b, _: a and b,
        "allOf": lambda a, b, _: [*a, *b],
        "multipleOf": _fold_multiples,
        "format": lambda a, _b, _p: a,
    }
    if keyword not in folders:
        raise SchemaError(f"`{keyword}` is given twice in an `allOf`, which is not supported", param=param)
    return folders[keyword](mine, other, param)


def _fold_types(mine: Any, other: Any, param: str) -> list[str]:
    left = [mine] if isinstance(mine, str) else list(mine)
    right = [other] if isinstance(other, str) else list(other)
    both = [name for name in left if name in right or (name == "integer" and "number" in right)]
    both += [name for name in right if name == "integer" and "number" in left and name not in both]
    if not both:
        raise SchemaError(f"`type`: {left} and {right} exclude each other", param=param)
    return both


def _fold_multiples(mine: object, other: object, param: str) -> int:
    if isinstance(mine, int) and isinstance(other, int):
        return math.lcm(mine, other)
    raise SchemaError("`multipleOf` is given twice in an `allOf`, which is not supported", param=param)


def _close_properties(merged: Schema, left: Schema, right: Schema) -> None:
    """Drop properties that the other schema, being closed, does not allow."""
    for closed, other in ((left, right), (right, left)):
        if closed.get("additionalProperties") is False:
            allowed = closed.get("properties") or {}
            foreign = [name for name in other.get("properties") or {} if name not in allowed]
            if foreign:
                merged["properties"] = {k: v for k, v in merged["properties"].items() if k not in foreign}


def type_names(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a schema allows; all of them when it does not say."""
    kinds = schema.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    names = [kind for kind in listed if isinstance(kind, str)] or _implied(schema)
    if schema.get("nullable") is True and "null" not in names:
        names = [*names, "null"]
    return names


def _implied(schema: Mapping[str, Any]) -> list[str]:
    """Return the type that keywords imply where ``type`` is left out, as schemas in the wild mean it."""
    for name, keywords in (
        ("object", ("properties", "required", "additionalProperties", "patternProperties", "minProperties")),
        ("array", ("items", "prefixItems", "minItems", "maxItems")),
        ("string", ("pattern", "format", "minLength", "maxLength")),
        ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    ):
        if any(keyword in schema for keyword in keywords):
            return [name]
    return []


def has_type(value: object, names: list[str]) -> bool:
    """Tell whether a value is of one of some types (any, when there are none)."""
    if not names:
        return True
    kinds: dict[str, Callable[[Any], bool]] = {
        "string": lambda v: isinstance(v, str),
        "boolean": lambda v: isinstance(v, bool),
        "null": lambda v: v is None,
        "integer": _is_integer,
        "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
        "array": lambda v: isinstance(v, list),
        "object": lambda v: isinstance(v, Mapping),
    }
    return any(name in kinds and kinds[name](value) for name in names)


def _is_integer(value: Any) -> bool:
    """Tell whether a value is an integer as JSON Schema means it: 1.0 is one, true is none."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
