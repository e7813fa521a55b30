"""Whether alternatives of a ``oneOf`` exclude each other, as far as that can be seen without values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from api.gemma4.schema_merge import ALL_TYPES, Schema, type_names

MAX_OPTIONS: Final = 250
"""Alternatives that are compared each with each; of more, none is known to exclude another."""

_Values = frozenset[Hashable]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What tells one alternative from another.

    Attributes:
        values: all that it allows; None when it does not list them.
        types: that it allows; a number may be an integer.
        tags: the values of required properties that list theirs.
    """

    values: _Values | None
    types: frozenset[str]
    tags: Mapping[str, _Values]

    @classmethod
    def of(cls, schema: Schema) -> _Facts:
        names = frozenset(type_names(schema) or ALL_TYPES)
        properties = schema.get("properties") or {}
        listed = {name: _listed(properties.get(name)) for name in schema.get("required") or ()}
        tags = {name: values for name, values in listed.items() if values is not None}
        return cls(_listed(schema), names | {"integer"} if "number" in names else names, tags)

    def overlaps(self, other: _Facts) -> bool:
        """Tell whether some value may satisfy both."""
        if self.values is not None and other.values is not None:
            return not self.values.isdisjoint(other.values)
        shared = self.types & other.types
        if shared != {"object"}:
            return bool(shared)
        common = self.tags.keys() & other.tags.keys()
        return not any(self.tags[name].isdisjoint(other.tags[name]) for name in common)


def are_disjoint(options: list[Schema]) -> bool:
    """Tell whether no value can satisfy two alternatives: by type, or by a property that both fix differently."""
    if len(options) > MAX_OPTIONS:
        return False
    return not any(one.overlaps(other) for one, other in combinations(map(_Facts.of, options), 2))


def _listed(schema: object) -> _Values | None:
    """Return the values that a schema lists, None when it lists none."""
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return frozenset((_frozen(schema["const"]),))
    return frozenset(map(_frozen, schema["enum"])) if isinstance(schema.get("enum"), list) else None


def _frozen(value: Any) -> Hashable:
    """Return what equal values have in common: as in Python, true is 1, which only finds an overlap too many."""
    if isinstance(value, Mapping):
        return frozenset((name, _frozen(item)) for name, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
