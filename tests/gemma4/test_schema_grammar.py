"""Grammars from JSON Schema, proven in both directions on the real vocabulary."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.chat.request import ToolDefinition
from api.gemma4.answer import AnswerCollector
from api.gemma4.errors import SchemaError
from api.gemma4.grammar import Grammar, Token, sequence
from api.gemma4.native import NativeWriter
from api.gemma4.notation import JsonNotation, NativeNotation
from api.gemma4.parse import Parser
from api.gemma4.prompt import PromptBuilder, PromptState
from api.gemma4.schema_grammar import SchemaCompiler
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.gemma4.matching import GrammarMatcher
from tests.gemma4.schema_strategies import Case, parameters, values

SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))
NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value"],
}


def native_grammar(tokenizer: Gemma4Tokenizer, schema: dict[str, Any], *, strict: bool = True) -> str:
    """Return the grammar of one native call of ``f`` with the schema's arguments."""
    grammar, special = Grammar(), tokenizer.special
    compiler = SchemaCompiler(grammar, NativeNotation(special.quote), schema, strict=strict, param="p")
    return grammar.to_lark(sequence(compiler.compile(schema), Token.of(special.call_close)))


def json_grammar(tokenizer: Gemma4Tokenizer, schema: dict[str, Any], *, strict: bool = True) -> str:
    """Return the grammar of plain JSON that ends the turn."""
    grammar = Grammar()
    compiler = SchemaCompiler(grammar, JsonNotation(), schema, strict=strict, param="p")
    return grammar.to_lark(sequence(compiler.compile(schema), Token.of(tokenizer.special.turn_close)))


def native_ids(tokenizer: Gemma4Tokenizer, document: dict[str, Any]) -> tuple[int, ...]:
    """Return a document in native notation as ids."""
    writer = NativeWriter(tokenizer.special.quote)
    writer.value(document)
    builder = PromptBuilder(tokenizer)
    builder.extend([*writer.out, tokenizer.special.call_close])
    return builder.build(PromptState.CONTINUED).ids


def parsed_arguments(tokenizer: Gemma4Tokenizer, schema: dict[str, Any], ids: list[int]) -> Any:
    """Return the arguments that the parser makes of a call's ids."""
    parser = Parser(
        tokenizer, PromptState.CONTINUED, tools=[ToolDefinition("f", None, schema)], new_call_id=lambda: "c"
    )
    collector = AnswerCollector()
    collector.add(parser.feed([tokenizer.special.call_open, *tokenizer.encode("call:f"), *ids]))
    collector.add(parser.finish(cut=False))
    answer = collector.answer()
    assert len(answer.calls) == 1
    assert answer.calls[0].complete
    assert not answer.content
    return json.loads(answer.calls[0].arguments, strict=False)


def in_schema_order(document: Any, schema: dict[str, Any]) -> Any:
    """Return a valid document with the keys of its objects in the order of the schema that they satisfy."""
    for option in schema.get("anyOf", ()):
        if jsonschema.Draft202012Validator(option).is_valid(document):
            return in_schema_order(document, option)
    if isinstance(document, list):
        first, rest = schema.get("prefixItems", []), schema.get("items", {})
        return [in_schema_order(v, first[i] if i < len(first) else rest) for i, v in enumerate(document)]
    if not isinstance(document, dict):
        return document
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    names = [name for name in properties if name in document] + [name for name in document if name not in properties]
    return {name: in_schema_order(document[name], properties.get(name, others)) for name in names}


@given(data=st.data(), case=parameters())
@settings(SETTINGS, max_examples=120)
def test_native_grammar_accepts_valid_arguments(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, data: st.DataObject, case: Case
) -> None:
    """Arguments that satisfy a schema, written as earlier calls are rendered, are accepted and parse back unchanged."""
    schema, documents = case
    document = data.draw(documents)
    jsonschema.validate(document, schema)
    ids = native_ids(tokenizer, document)
    assert matcher.accepts(native_grammar(tokenizer, schema), ids)
    assert parsed_arguments(tokenizer, schema, list(ids)) == document


@pytest.mark.slow
@given(case=parameters(), seed=st.integers(0, 2**32))
@settings(SETTINGS, max_examples=100)
def test_what_a_native_grammar_allows_satisfies_the_schema(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, case: Case, seed: int
) -> None:
    """Ids drawn at random under the grammar's mask parse to arguments that satisfy the schema."""
    schema, _ = case
    ids = matcher.draw(native_grammar(tokenizer, schema), seed)
    if ids is not None:
        jsonschema.validate(parsed_arguments(tokenizer, schema, ids), schema)


@given(data=st.data(), case=values())
@settings(SETTINGS, max_examples=80)
def test_json_grammar_accepts_valid_documents(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, data: st.DataObject, case: Case
) -> None:
    """Valid JSON with its keys in the schema's order is accepted, compact or with single spaces."""
    schema, documents = case
    document = data.draw(documents)
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    text = json.dumps(in_schema_order(document, schema), ensure_ascii=False, separators=separators)
    text = text.replace("\x7f", "\\u007f")  # the matcher takes this one only as an escape
    ids = (*tokenizer.encode(text), tokenizer.special.turn_close)
    assert matcher.accepts(json_grammar(tokenizer, schema), ids)


@given(case=values(), seed=st.integers(0, 2**32))
@settings(SETTINGS, max_examples=80)
def test_what_a_json_grammar_allows_satisfies_the_schema(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, case: Case, seed: int
) -> None:
    """Ids drawn at random under the grammar's mask are JSON that satisfies the schema, without white space to spare."""
    schema, _ = case
    ids = matcher.draw(json_grammar(tokenizer, schema), seed)
    if ids is not None:
        text = tokenizer.decode_marked(ids[:-1])
        jsonschema.validate(json.loads(text), schema)
        assert text == text.strip()


@given(data=st.data())
@settings(SETTINGS, max_examples=20)
def test_recursive_schemas_are_enforced(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, data: st.DataObject
) -> None:
    """A schema that refers to itself accepts nested documents and refuses a wrong type at any depth."""
    schema = {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/node"}},
        "required": ["n"],
        "$defs": {"node": NODE},
    }
    depth = data.draw(st.integers(0, 12))

    def document(innermost: object) -> dict[str, Any]:
        node: dict[str, Any] = {"value": innermost}
        for level in range(depth):
            node = {"value": level, "next": node}
        return {"n": node}

    grammar = native_grammar(tokenizer, schema)
    assert matcher.accepts(grammar, native_ids(tokenizer, document(7)))
    assert not matcher.accepts(grammar, native_ids(tokenizer, document("7")))


def obj(**properties: Any) -> dict[str, Any]:
    """Return an object schema that requires all of its properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        (obj(a={"type": "integer"}), {}),
        (obj(a={"type": "integer"}), {"a": 1.5}),
        (obj(a={"type": "integer"}), {"a": 1, "b": 2}),
        (obj(a={"type": "integer", "minimum": 3, "maximum": 12}), {"a": 13}),
        (obj(a={"type": "integer", "multipleOf": 5}), {"a": 7}),
        (obj(a={"type": "string", "maxLength": 3}), {"a": "abcd"}),
        (obj(a={"type": "string", "pattern": "^[a-c]+$"}), {"a": "abd"}),
        (obj(a={"type": "string", "format": "date"}), {"a": "2025-02-29"}),
        (obj(a={"type": "string", "format": "uuid"}), {"a": "not-a-uuid"}),
        (obj(a={"enum": ["x", 1]}), {"a": "1"}),
        (obj(a={"const": "x"}), {"a": "y"}),
        (obj(a={"type": "array", "items": {"type": "boolean"}, "minItems": 2}), {"a": [True]}),
        (obj(a={"type": "array", "items": {"type": "boolean"}, "maxItems": 1}), {"a": [True, False]}),
        (obj(a={"anyOf": [{"type": "integer"}, {"type": "null"}]}), {"a": "x"}),
        (obj(a={"type": "object", "additionalProperties": {"type": "integer"}}), {"a": {"k": "x"}}),
        (obj(a={"allOf": [{"type": "integer", "minimum": 1}, {"maximum": 5}]}), {"a": 6}),
        (obj(a={"oneOf": [obj(k={"const": "x"}), obj(k={"const": "y"}, n={"type": "integer"})]}), {"a": {"k": "y"}}),
        (obj(a={"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False}), {"a": {"y": 1}}),
    ],
)
def test_what_breaks_the_schema_is_refused(
    tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher, schema: dict[str, Any], document: dict[str, Any]
) -> None:
    """A document that breaks one keyword is refused in both notations."""
    assert not matcher.accepts(native_grammar(tokenizer, schema), native_ids(tokenizer, document))
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    assert not matcher.accepts(json_grammar(tokenizer, schema), [*tokenizer.encode(text), tokenizer.special.turn_close])


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"if": {}, "then": {}}, "if"),
        ({"type": "string", "pattern": "(?=x)y"}, "pattern"),
        ({"type": "string", "pattern": "(a)\\1"}, "pattern"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"type": "string", "pattern": "a{99999}"}, "pattern"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum"),
        ({"type": "string", "minLength": 5, "maxLength": 4}, "minLength"),
        ({"$ref": "https://example.org/schema"}, r"\$ref"),
        ({"$ref": "#/$defs/none"}, r"\$ref"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "type"),
        ({"type": "thing"}, "type"),
        ({"type": "string", "enum": [1]}, "enum"),
        ({"type": "object", "minProperties": 3}, "minProperties"),
        ({"type": "object", "minProperties": "x"}, "minProperties"),
        ({"type": "object", "properties": ["a"]}, "properties"),
        ({"type": "object", "properties": {"a": 5}}, "properties"),
        ({"required": "a"}, "required"),
        ({"allOf": 5}, "allOf"),
        ({"allOf": [{"minimum": 5}, {"minimum": "x"}]}, "minimum"),
        ({"type": 5}, "type"),
        ({"enum": 5}, "enum"),
        ({"enum": ["x"] * 5001}, "enum"),
        ({"enum": ["a"], "pattern": "("}, "pattern"),
        ({"enum": ["a"], "pattern": "a", "minLength": {}}, "minLength"),
        ({"type": "array", "items": 5}, "items"),
        ({"$ref": "#/allOf/\N{SUPERSCRIPT TWO}", "allOf": [{}]}, r"\$ref"),
    ],
)
@pytest.mark.parametrize("make", [native_grammar, json_grammar])
def test_what_cannot_be_enforced_is_named(
    tokenizer: Gemma4Tokenizer, make: Callable[..., str], schema: dict[str, Any], named: str
) -> None:
    """A strict schema that cannot be honoured is an error that names the keyword and the field."""
    with pytest.raises(SchemaError, match=named) as caught:
        make(tokenizer, schema)
    assert caught.value.param == "p"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"type": "string", "enum": None, "allOf": None, "pattern": None}, {"type": "string"}),
        ({"properties": {"a": {"type": "string", "required": True}}}, {"properties": {"a": {"type": "string"}}}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"enum": [0, 1], "minimum": 0, "exclusiveMinimum": False}, {"enum": [0, 1]}),
        (
            {"type": "array", "items": [{"type": "null"}], "additionalItems": False},
            {"type": "array", "prefixItems": [{"type": "null"}], "items": False},
        ),
    ],
)
def test_other_ways_to_write_a_schema(
    tokenizer: Gemma4Tokenizer, written: dict[str, Any], meant: dict[str, Any]
) -> None:
    """Null is not there, and what older drafts write is understood."""
    assert json_grammar(tokenizer, written) == json_grammar(tokenizer, meant)


def test_a_pattern_beside_an_enum_costs_linear_time(tokenizer: Gemma4Tokenizer) -> None:
    """A pattern on which Python's own engine would never end tells at once which values it allows."""
    hostile = "a" * 5000
    assert json_grammar(tokenizer, {"enum": [hostile, f"{hostile}!"], "pattern": "^(a+)+$"}) == json_grammar(
        tokenizer, {"enum": [hostile]}
    )


KEYWORDS = (
    *("type", "properties", "required", "additionalProperties", "patternProperties", "items", "prefixItems", "enum"),
    *("minItems", "maxItems", "minLength", "maxLength", "pattern", "format", "minimum", "exclusiveMaximum", "const"),
    *("multipleOf", "anyOf", "oneOf", "allOf", "$ref", "$defs", "nullable", "minProperties", "maxProperties"),
)
JUNK = (
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats(-2, 2) | st.sampled_from(["", "a", "string", "#", "("])
)


@settings(SETTINGS, max_examples=100)
@given(
    schema=st.recursive(
        JUNK,
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from((*KEYWORDS, "a", "b")), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
@pytest.mark.parametrize("make", [native_grammar, json_grammar])
def test_whatever_is_sent_as_a_schema_is_compiled_or_refused(
    tokenizer: Gemma4Tokenizer, make: Callable[..., str], schema: Any
) -> None:
    """No value of any keyword, however wrong, is a fault of the server."""
    with contextlib.suppress(SchemaError):
        make(tokenizer, schema)


def test_without_strict_the_enforceable_part_is_enforced(tokenizer: Gemma4Tokenizer, matcher: GrammarMatcher) -> None:
    """A keyword that cannot be enforced is left to the model; the types round it are not."""
    schema = obj(
        a={"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, b={"type": "string", "pattern": "(?=x)"}
    )
    grammar = native_grammar(tokenizer, schema, strict=False)
    assert matcher.accepts(grammar, native_ids(tokenizer, {"a": [1, 1], "b": "y"}))
    assert not matcher.accepts(grammar, native_ids(tokenizer, {"a": ["1"], "b": "y"}))


def test_large_schemas_are_refused(tokenizer: Gemma4Tokenizer) -> None:
    """A schema that grows without end through its references is an error, at once."""
    node = {"type": "object", "properties": {key: {"allOf": [{"$ref": "#"}, {}]} for key in "abcd"}}
    with pytest.raises(SchemaError, match="too large"):
        native_grammar(tokenizer, node)
    # Each stands for the next one twice: what few bytes say would take days.
    chain = {f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(60)}
    with pytest.raises(SchemaError, match="too large"):
        json_grammar(tokenizer, {"allOf": [{"$ref": "#/$defs/a0"}], "$defs": {**chain, "a60": {"type": "string"}}})
