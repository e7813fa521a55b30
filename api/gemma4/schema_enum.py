"""The values that ``enum`` and ``const`` list, less those that the rest of their schema forbids."""

from __future__ import annotations

from typing import Any

from api.gemma4.errors import SchemaError
from api.gemma4.notation import satisfies_lengths
from api.gemma4.schema_merge import Schema, has_type, type_names


def enumerated(schema: Schema, *, param: str) -> list[Any]:
    """Return the listed values that the schema's other keywords allow.

    Raises:
        SchemaError: when none is left.
    """
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema.get("const")]
    if "const" in schema:
        values = [value for value in values if _same(value, schema["const"])]
    names = type_names(schema) if "type" in schema else []
    kept = [value for value in values if has_type(value, names) and _within(value, schema)]
    if not kept:
        raise SchemaError("enum lists no value that the rest of the schema allows", param=param)
    return kept


def _same(left: object, right: object) -> bool:
    """Compare as JSON does: true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _within(value: object, schema: Schema) -> bool:
    """Tell whether a listed value is within the bounds beside the list."""
    if isinstance(value, str):
        return satisfies_lengths(value, schema)
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
