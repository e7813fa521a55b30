"""Whether alternatives of a ``oneOf`` exclude each other, as far as that can be seen without values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.gemma4.schema_merge import ALL_TYPES, Schema, type_names


def are_disjoint(options: list[Schema]) -> bool:
    """Tell whether no value can satisfy two alternatives: by type, or by a property that both fix differently."""
    return not any(_overlap(a, b) for index, a in enumerate(options) for b in options[index + 1 :])


def _overlap(a: Schema, b: Schema) -> bool:
    fixed = [_fixed(option) for option in (a, b)]
    if fixed[0] is not None and fixed[1] is not None:
        return any(value in fixed[1] for value in fixed[0])
    shared = _types(a) & _types(b)
    if shared != {"object"}:
        return bool(shared)
    left, right = a.get("properties") or {}, b.get("properties") or {}
    for name in set(a.get("required") or ()) & set(b.get("required") or ()):
        mine, other = _fixed(left.get(name)), _fixed(right.get(name))
        if mine is not None and other is not None and not any(value in other for value in mine):
            return False
    return True


def _types(schema: Schema) -> set[str]:
    """Return the types that a schema allows; a number may be an integer."""
    names = set(type_names(schema) or ALL_TYPES)
    return names | {"integer"} if "number" in names else names


def _fixed(schema: object) -> list[Any] | None:
    """Return the values that a schema lists, None when it lists none."""
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None
