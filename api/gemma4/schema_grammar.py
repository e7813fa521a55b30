"""JSON Schema to a grammar of the values that satisfy it, in either notation.

Everything that the grammar accepts satisfies the schema. An object that lists properties takes no others unless
``additionalProperties`` says so; keys come in one order, which keeps the grammar linear. With ``strict`` a keyword that
cannot be enforced is an error that names it; without, it is left to the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from api.gemma4.errors import SchemaError
from api.gemma4.grammar import (
    EMPTY,
    Grammar,
    JsonLeaf,
    Literal,
    Node,
    Reference,
    Repeat,
    choice,
    optional,
    sequence,
)
from api.gemma4.notation import Notation
from api.gemma4.regex import search_regex
from api.gemma4.schema import MAX_DEPTH, resolve_pointer
from api.gemma4.schema_enum import enumerated
from api.gemma4.schema_lists import item_list, member_list
from api.gemma4.schema_merge import ALL_TYPES, Schema, constraints, merge, type_names
from api.gemma4.schema_overlap import are_disjoint

MAX_NODES = 5_000
"""Most schema nodes that one grammar is made of."""
MAX_FOLDS = 4 * MAX_NODES
"""Most schemas that are folded into them: a few references can stand for thousands."""

_UNSUPPORTED = (
    *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "uniqueItems", "contains"),
    *("minContains", "maxContains", "propertyNames", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef"),
)
_NUMBER_KEYWORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


class SchemaCompiler:
    """Compiles one schema into rules of a grammar."""

    def __init__(self, grammar: Grammar, notation: Notation, root: object, *, strict: bool, param: str) -> None:
        """Prepare to compile ``root``; ``param`` is its dotted path in the request."""
        self._grammar = grammar
        self._notation = notation
        self._root = root if isinstance(root, Mapping) else {}
        self._strict = strict
        self._param = param
        self._references: dict[str, Reference] = {}
        self._any: Reference | None = None
        self._nodes = self._folds = 0

    def compile(self, schema: object) -> Node:
        """Return the grammar of the values that satisfy a schema.

        Raises:
            SchemaError: naming what is not supported, contradictory or too large.
        """
        try:
            return self._compile(schema, 0)
        except RecursionError as error:
            raise self._error("the schema is too large or nests too deep") from error

    def any_object(self) -> Node:
        """Return the grammar of any object."""
        return self._compile({"type": "object"}, 0)

    def _compile(self, schema: object, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self._error("the schema is too large or nests too deep")
        if schema is False:
            raise self._error("a schema that is false allows no value")
        if not isinstance(schema, Mapping):
            return self._any_value()
        plain = constraints(schema, param=self._param)
        if set(plain) == {"$ref"}:
            return self._reference(plain["$ref"], depth)
        plain = self._fold(plain, ())
        self._refuse_unsupported(plain)
        if not plain:
            return self._any_value()
        if "enum" in plain or "const" in plain:
            values = enumerated(plain, strict=self._strict, param=self._param)
            return choice(self._notation.literal(value) for value in values)
        for keyword in ("anyOf", "oneOf"):
            if keyword in plain:
                return self._alternatives(keyword, plain, depth)
        return choice([self._typed(name, plain, depth) for name in type_names(plain) or ALL_TYPES])

    # -- references and combinations

    def _reference(self, reference: object, depth: int) -> Node:
        """Return the rule of a referenced schema, made once, so that recursion ends."""
        key = str(reference)
        if key not in self._references:
            target = resolve_pointer(self._root, reference, param=self._param)
            self._references[key] = self._grammar.reserve()
            self._grammar.define(self._references[key], self._compile(target, depth + 1))
        return self._references[key]

    def _fold(self, schema: Schema, active: tuple[str, ...]) -> Schema:
        """Fold ``allOf`` and a reference with neighbours into the schema itself."""
        self._folds += 1
        if self._folds > MAX_FOLDS:
            raise self._error("the schema is too large or nests too deep")
        schema = constraints(schema, param=self._param)
        while "allOf" in schema or "$ref" in schema:
            parts = list(schema.pop("allOf", ()))
            if "$ref" in schema:
                reference = str(schema.pop("$ref"))
                if reference in active:
                    raise self._error("`$ref` refers to itself")
                active = (*active, reference)
                parts.append(resolve_pointer(self._root, reference, param=self._param))
            for part in parts:
                if part is False:
                    raise self._error("a schema that is false allows no value")
                if isinstance(part, Mapping):
                    schema = merge(schema, self._fold(dict(part), active), param=self._param)
        return schema

    def _alternatives(self, keyword: str, schema: Schema, depth: int) -> Node:
        """Choose among alternatives, each together with what stands beside them."""
        base = {key: value for key, value in schema.items() if key != keyword}
        nullable = base.pop("nullable", False)
        options: list[Schema] = []
        bodies: list[Mapping[str, Any]] = []
        for option in schema[keyword] if isinstance(schema[keyword], list) else ():
            if option is False:
                continue
            body = option if isinstance(option, Mapping) else {}
            try:
                options.append(merge(base, self._fold(dict(body), ()), param=self._param))
            except SchemaError:
                if not base:
                    raise
                continue
            # A bare reference stays one, so that recursive schemas end.
            bodies.append(options[-1] if base else body)
        if not options:
            raise self._error(f"`{keyword}` allows no value")
        if keyword == "oneOf" and self._strict and not are_disjoint(options):
            raise self._error("`oneOf` with alternatives that may hold at once cannot be enforced; use `anyOf`")
        nodes = [self._compile(body, depth + 1) for body in bodies]
        return choice([*nodes, *([Literal("null")] if nullable else [])])

    def _refuse_unsupported(self, schema: Schema) -> None:
        for keyword in _UNSUPPORTED:
            if keyword in schema and schema[keyword] is not False:
                if self._strict:
                    raise self._error(f"`{keyword}` cannot be enforced")
                del schema[keyword]

    # -- types

    def _typed(self, name: str, schema: Schema, depth: int) -> Node:
        if name == "object":
            return self._object(schema, depth)
        if name == "array":
            return self._array(schema, depth)
        if name == "string":
            return self._string(schema)
        if name in {"integer", "number"}:
            return self._number(name, schema)
        if name == "boolean":
            return choice((Literal("true"), Literal("false")))
        if name == "null":
            return Literal("null")
        raise self._error(f"`type` {name[:200]!r} is not known")

    def _string(self, schema: Schema) -> Node:
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if high is not None and high < low:
            raise self._error("`minLength` and `maxLength` do not make a range")
        try:
            return self._notation.string(schema, param=self._param)
        except SchemaError:
            if self._strict:
                raise
            return self._notation.string({k: v for k, v in schema.items() if k != "pattern"}, param=self._param)

    def _number(self, name: str, schema: Schema) -> Node:
        leaf: dict[str, Any] = {"type": name}
        leaf.update({keyword: schema[keyword] for keyword in _NUMBER_KEYWORDS if keyword in schema})
        low = max((leaf[k] for k in ("minimum", "exclusiveMinimum") if k in leaf), default=None)
        high = min((leaf[k] for k in ("maximum", "exclusiveMaximum") if k in leaf), default=None)
        if low is not None and high is not None and low > high:
            raise self._error("`minimum` is above `maximum`")
        return JsonLeaf(json.dumps(leaf))

    def _array(self, schema: Schema, depth: int) -> Node:
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if high is not None and high < low:
            raise self._error("`minItems` and `maxItems` do not make a range")
        first = [self._compile(item, depth + 1) for item in schema.get("prefixItems") or ()]
        items = schema.get("items", True)
        if items is False:
            high = len(first) if high is None else min(high, len(first))
        rest: Node = EMPTY if items is False else self._grammar.add(self._compile(items, depth + 1))
        return sequence(Literal("["), item_list(self._notation.comma, first, rest, (low, high)), Literal("]"))

    # -- objects

    def _object(self, schema: Schema, depth: int) -> Node:
        properties = {str(k): v for k, v in (schema.get("properties") or {}).items()}
        required = [name for name in schema.get("required") or () if isinstance(name, str)]
        other = self._other_member(schema, tuple(properties), depth)
        missing = [name for name in required if name not in properties]
        if missing and other is None:
            if schema.get("additionalProperties") is False:
                raise self._error(f"`required` names {missing[0][:200]!r}, which `properties` do not allow")
            properties.update(dict.fromkeys(missing, True))
        elif missing:
            properties.update(dict.fromkeys(missing, schema.get("additionalProperties", True)))
            other = self._other_member(schema, tuple(properties), depth)
        if not properties:
            return self._free_object(schema, other)
        self._check_counts(schema, len(required), None if other else len(properties))
        members: list[tuple[Node, bool]] = []
        for name, child in self._notation.members(properties):
            if child is False and name not in required:
                continue
            value = self._grammar.add(self._compile(child, depth + 1))
            members.append((sequence(self._notation.key(name), value), name in required))
        return sequence(Literal("{"), member_list(self._grammar, self._notation.comma, members, other), Literal("}"))

    def _other_member(self, schema: Schema, declared: tuple[str, ...], depth: int) -> Node | None:
        """Return a member that is not declared, or None where there can be none."""
        patterns = schema.get("patternProperties")
        others = schema.get("additionalProperties")
        if isinstance(patterns, Mapping) and patterns:
            if self._strict and (len(patterns) > 1 or others is not False):
                raise self._error("`patternProperties` can be enforced only alone, with `additionalProperties` false")
            pattern, child = next(iter(patterns.items()))
            regex = search_regex(str(pattern), param=self._param, keyword="patternProperties")
            key = self._notation.other_key(declared, regex)
            return self._grammar.add(sequence(key, self._compile(child, depth + 1)))
        if others is False or (others is None and (declared or "properties" in schema)):
            return None
        value = self._any_value() if others in (None, True) else self._compile(others, depth + 1)
        return self._grammar.add(sequence(self._notation.other_key(declared, None), value))

    def _free_object(self, schema: Schema, member: Node | None) -> Node:
        """Return an object without declared properties."""
        low, high = schema.get("minProperties", 0), schema.get("maxProperties")
        if member is None:
            if low:
                raise self._error("`minProperties` asks for properties where none are allowed")
            return Literal("{}")
        if (low or high is not None) and self._strict and (low > 1 or high not in (None, 0, 1)):
            # Keys of one object could repeat, so a count of members is no count of properties.
            raise self._error("`minProperties` and `maxProperties` cannot be enforced here")
        if high == 0:
            return Literal("{}")
        more = Repeat(sequence(self._notation.comma, member), 0, None if high is None else high - 1)
        body = sequence(member, more)
        return sequence(Literal("{"), body if low else optional(body), Literal("}"))

    def _check_counts(self, schema: Schema, required: int, most: int | None) -> None:
        """Accept counts of properties only where the grammar holds them anyway."""
        low, high = schema.get("minProperties", 0), schema.get("maxProperties")
        if self._strict and (low > required or (high is not None and (most is None or high < most))):
            raise self._error("`minProperties` and `maxProperties` cannot be enforced here")

    def _any_value(self) -> Node:
        """Return the rule of any value."""
        if self._any is None:
            self._any = self._grammar.reserve()
            comma = self._notation.comma
            member = sequence(self._notation.other_key((), None), self._any)
            scalars = [self._string({}), self._number("number", {}), *map(Literal, ("true", "false", "null"))]
            items = optional(sequence(self._any, Repeat(sequence(comma, self._any))))
            members = optional(sequence(member, Repeat(sequence(comma, member))))
            array = sequence(Literal("["), items, Literal("]"))
            self._grammar.define(self._any, choice([*scalars, array, sequence(Literal("{"), members, Literal("}"))]))
        return self._any

    def _error(self, message: str) -> SchemaError:
        return SchemaError(message, param=self._param)
