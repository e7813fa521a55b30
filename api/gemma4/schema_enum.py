"""The values that ``enum`` and ``const`` list, less those that the rest of their schema forbids."""

from __future__ import annotations

from typing import Any

from api.gemma4.errors import SchemaError
from api.gemma4.regex import WholeTexts, search_regex
from api.gemma4.schema_merge import Schema, has_type, type_names


def enumerated(schema: Schema, *, strict: bool, param: str) -> list[Any]:
    """Return the listed values that the schema's other keywords allow.

    Without ``strict`` a pattern that is not supported forbids nothing.

    Raises:
        SchemaError: when none is left.
    """
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    if "const" in schema:
        values = [value for value in values if _same(value, schema["const"])]
    names = type_names(schema) if "type" in schema else []
    pattern = _pattern(schema, strict=strict, param=param)
    kept = [value for value in values if has_type(value, names) and _within(value, schema, pattern)]
    if not kept:
        raise SchemaError("`enum` lists no value that the rest of the schema allows", param=param)
    return kept


def _pattern(schema: Schema, *, strict: bool, param: str) -> WholeTexts | None:
    """Return what tells the texts that a schema's pattern allows."""
    if "pattern" not in schema:
        return None
    try:
        return WholeTexts(search_regex(schema["pattern"], param=param), param=param)
    except SchemaError:
        if strict:
            raise
        return None


def _same(left: object, right: object) -> bool:
    """Compare as JSON does: true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _within(value: object, schema: Schema, pattern: WholeTexts | None) -> bool:
    """Tell whether a listed value is within the bounds beside the list."""
    if isinstance(value, str):
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        return low <= len(value) and (high is None or len(value) <= high) and (pattern is None or pattern.has(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    return (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )
