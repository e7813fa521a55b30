"""Tool declarations: the notation has few keywords, and nothing that the model must know is lost."""

from __future__ import annotations

from typing import Any

import pytest

from api.gemma4.errors import SchemaError
from api.gemma4.render import render
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
