"""Tool declarations: the notation has few keywords, and nothing that the model must know is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.chat.request import ToolDefinition
from api.gemma4.declare import declaration_ids
from api.gemma4.errors import SchemaError
from api.gemma4.native import NativeWriter, native_text
from api.gemma4.render import render
from api.gemma4.schema import normalise
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.gemma4.openai_form import chat_request


def declared(tokenizer: Gemma4Tokenizer, schema: dict[str, Any]) -> str:
    """Return the parameters' part of a declaration."""
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"function": {"name": "f", "parameters": schema}}],
    }
    text = render(chat_request(body), tokenizer).text
    return text.partition(",parameters:")[2].partition("}<tool|>")[0].replace('<|"|>', "'")


def prop(schema: dict[str, Any], **definitions: Any) -> dict[str, Any]:
    """Return a parameter schema with one property p."""
    return {"type": "object", "properties": {"p": schema}, "$defs": definitions}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (prop({"$ref": "#/$defs/c"}, c={"type": "string", "description": "hue"}), "description:'hue',type:'STRING'"),
        (prop({"anyOf": [{"type": "integer"}, {"type": "null"}]}), "nullable:true,type:'INTEGER'"),
        (prop({"type": ["string", "null"]}), "nullable:true,type:'STRING'"),
        (prop({"type": "integer", "enum": [1, 2]}), "description:'one of: 1, 2',type:'INTEGER'"),
        (prop({"enum": ["a", "b"]}), "enum:['a','b'],type:'STRING'"),
        (prop({"type": "string", "default": "x", "description": "D."}), "description:'D. (default: x)',type:'STRING'"),
        (prop({"type": "integer", "minimum": 1, "maximum": 9}), "description:'minimum: 1; maximum: 9',type:'INTEGER'"),
        (prop({"type": ["string", "integer"]}), "description:'type: string or integer',type:'STRING'"),
        (prop({"oneOf": [{"type": "null"}, {"type": "boolean"}]}), "nullable:true,type:'BOOLEAN'"),
        (prop({"anyOf": [{"type": "string"}, {"type": "number"}]}),
         "description:'type: string or number',type:'STRING'"),
        (prop({"type": "object", "additionalProperties": {"type": "integer"}}),
         "description:'values: {\"type\": \"integer\"}',properties:{},type:'OBJECT'"),
        (prop({"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"required": ["a"]}]}),
         "properties:{a:{type:'STRING'}},required:['a'],type:'OBJECT'"),
        (prop({"$ref": "#/$defs/n"}, n={"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}),
         "properties:{next:{description:'recursive: same form as n',properties:{},type:'OBJECT'}},type:'OBJECT'"),
    ],
)  # fmt: skip
def test_declarations_lose_nothing(tokenizer: Gemma4Tokenizer, schema: dict[str, Any], text: str) -> None:
    """What the notation has no place for is resolved, or told in the description."""
    assert declared(tokenizer, schema) == "{properties:{p:{" + text + "}},type:'OBJECT'}"


def test_schemas_that_cannot_be_declared_are_refused(tokenizer: Gemma4Tokenizer) -> None:
    """References to nowhere, and nests of references that explode, are errors that name the tool."""
    with pytest.raises(SchemaError, match="leads nowhere") as caught:
        declared(tokenizer, prop({"$ref": "#/$defs/missing"}))
    assert caught.value.param == "tools.0.function.parameters"
    bomb = {
        f"d{i}": {"type": "object", "properties": {key: {"$ref": f"#/$defs/d{i + 1}"} for key in "abcd"}}
        for i in range(12)
    }
    bomb["d12"] = {"type": "string"}
    with pytest.raises(SchemaError, match="too large"):
        declared(tokenizer, prop({"$ref": "#/$defs/d0"}, **bomb))
    # Each level is told within the text of the one around it, and escaped once more.
    nested: dict[str, Any] = {"type": "string", "enum": ["x"]}
    for _ in range(28):
        nested = {"anyOf": [nested, {"type": "string", "maxLength": 3}]}
    with pytest.raises(SchemaError, match="too large"):
        declared(tokenizer, prop(nested))


PLAIN = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "object", "array", "null"])},
        optional={"description": st.sampled_from(["", "d", "D. "]), "enum": st.just(["a"]), "nullable": st.just(True)},
    ),
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["object", "array", "string"])},
        optional={
            "properties": st.dictionaries(st.sampled_from(["a", "B", "type", "c d"]), inner, max_size=3),
            "items": inner,
            "required": st.lists(st.sampled_from(["a", "B"]), unique=True),
            "description": st.just("d"),
        },
    ),
    max_leaves=6,
)


def with_empty_parts(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of the same meaning whose every node has a keyword that needs the full treatment."""
    made = {**schema, "allOf": []}
    if "properties" in schema:
        made["properties"] = {name: with_empty_parts(child) for name, child in schema["properties"].items()}
    if "items" in schema:
        made["items"] = with_empty_parts(schema["items"])
    return made


@given(schema=PLAIN)
def test_plain_schemas_take_a_short_way_to_the_same_place(schema: dict[str, Any]) -> None:
    """What needs no repair is passed on as it is, and is what the full treatment makes of it."""
    assert normalise(schema, param="p") == normalise(with_empty_parts(schema), param="p")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON, quote_keys=st.booleans())
@settings(max_examples=200)
def test_one_text_and_pieces_say_the_same(value: Any, quote_keys: bool) -> None:
    """The fast way to write a value gives what the writer of pieces gives."""
    writer = NativeWriter(7)
    writer.value(value, quote_keys=quote_keys)
    spelled = "".join("\0" if part == 7 else str(part) for part in writer.out)
    assert native_text(value, "\0", quote_keys=quote_keys) == spelled


def test_any_character_may_stand_in_a_declaration(tokenizer: Gemma4Tokenizer) -> None:
    """Also those that are used for the delimiter meanwhile, and half of a surrogate pair."""
    described = "".join(map(chr, range(0xE000, 0xE010))) + "\0"
    for text in (described, described + "\ud83d"):
        (ids,) = declaration_ids([ToolDefinition("f", text, {"type": "object", "properties": {}})], tokenizer)
        assert text.replace("\ud83d", "\N{REPLACEMENT CHARACTER}") in tokenizer.decode_marked(ids)
        assert ids.count(tokenizer.special.quote) == 4
