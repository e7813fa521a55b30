"""Whether the keywords of a JSON Schema have values of the kind that each of them takes.

What compiles and folds schemas relies on it: after ``well_formed`` a list is a list and a bound a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from api.gemma4.errors import SchemaError

MAX_MEMBERS: Final = 5_000
"""Most alternatives, values or names in one list: some are compared each with each."""

_Test = Callable[[Any], bool]


def is_count(value: object) -> bool:
    """Tell whether a value is a number of things."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_schema(value: object) -> bool:
    return value is None or isinstance(value, Mapping | bool)


def _is_list_of_schemas(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_schema, value))


def _is_map_of_schemas(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_schema, value.values()))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_type(value: object) -> bool:
    return _is_text(value) or _is_list_of_texts(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FORMS: Final[tuple[tuple[str, _Test, tuple[str, ...]], ...]] = (
    ("a list of schemas", _is_list_of_schemas, ("allOf", "anyOf", "oneOf", "prefixItems")),
    ("an object of schemas", _is_map_of_schemas, ("properties", "patternProperties")),
    ("a schema", _is_schema, ("items", "additionalProperties")),
    ("a type or a list of types", _is_type, ("type",)),
    ("a list of names", _is_list_of_texts, ("required",)),
    ("a list", _is_list, ("enum",)),
    ("a text", _is_text, ("pattern", "format", "$ref")),
    ("a number", _is_number, ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    (
        "a whole number",
        is_count,
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    ),
)
_BOUNDS: Final = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
_EXPECTED: Final = {keyword: (words, test) for words, test, keywords in _FORMS for keyword in keywords}


def well_formed(schema: dict[str, Any], *, param: str) -> dict[str, Any]:
    """Return the schema in the form that later drafts have, without keywords that are null.

    Serialisers write null for what is not set. Old drafts mark a required property on itself, list the items that have
    places of their own under ``items``, and (the fourth, which OpenAPI 3.0 took over) write a flag beside a bound that
    is exclusive.

    Raises:
        SchemaError: naming a keyword whose value is of the wrong kind or far too long.
    """
    kept = {keyword: value for keyword, value in schema.items() if value is not None or keyword == "const"}
    if isinstance(kept.get("required"), bool):
        del kept["required"]
    if isinstance(kept.get("items"), list):
        kept["prefixItems"] = kept["items"]
        kept["items"] = kept.pop("additionalItems", True)
    for bound, exclusive in _BOUNDS:
        if isinstance(kept.get(exclusive), bool) and kept.pop(exclusive) and bound in kept:
            kept[exclusive] = kept.pop(bound)
    for keyword, value in kept.items():
        expected = _EXPECTED.get(keyword)
        if expected is not None and not expected[1](value):
            raise SchemaError(f"`{keyword}` must be {expected[0]}", param=param)
        if isinstance(value, list) and len(value) > MAX_MEMBERS:
            raise SchemaError(f"`{keyword}` has more than {MAX_MEMBERS} members", param=param)
    return kept
