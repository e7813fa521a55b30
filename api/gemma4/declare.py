"""Tool declarations in Gemma 4's own notation, from schemas that ``api.gemma4.schema`` has normalised.

The form is the one the model was trained on: description, then enum or items, nullable, properties, required, and the
type last, in capitals. Rules: the fifth version of the family's template (9 July 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import orjson

from api.chat.request import JsonObject, ToolDefinition
from api.gemma4.native import NativeWriter, sorted_items
from api.gemma4.prompt import PromptBuilder, PromptState
from api.gemma4.schema import normalise
from api.gemma4.tokenizer import Gemma4Tokenizer

_SCHEMA_KEYS = frozenset({"description", "type", "properties", "required", "nullable"})


def declaration_ids(tool: ToolDefinition, tokenizer: Gemma4Tokenizer, *, param: str) -> tuple[int, ...]:
    """Return a declaration with its two tokens, as ids. Conversations repeat their tools, so they are remembered.

    Raises:
        api.gemma4.errors.SchemaError: when the parameters are no usable JSON Schema.
    """
    key = _cache_key(tool)
    ids = tokenizer.declarations.get(key) if key else None
    if ids is None:
        builder = PromptBuilder(tokenizer)
        builder.add(tokenizer.special.tool_open)
        builder.extend(_declaration(tool, tokenizer.special.quote, param))
        builder.add(tokenizer.special.tool_close)
        ids = builder.build(PromptState.NEW_TURN).ids
        if key:
            tokenizer.declarations.remember(key, ids)
    return ids


def _cache_key(tool: ToolDefinition) -> bytes:
    """Serialise what a declaration is made of; nothing where that cannot be done fast."""
    try:
        return orjson.dumps((tool.name, tool.description, tool.parameters, tool.response))
    except orjson.JSONEncodeError:
        return b""


def _declaration(tool: ToolDefinition, quote: int, param: str) -> list[str | int]:
    """Return what stands between the two tool tokens, as texts and ids."""
    writer = NativeWriter(quote)
    writer.text("declaration:", tool.name, "{description:")
    writer.string(tool.description or "")
    if tool.parameters:
        _parameters(writer, normalise(tool.parameters, param=f"{param}.parameters"))
    if tool.response is not None:
        _response(writer, tool.response)
    writer.text("}")
    return writer.out


def _parameters(writer: NativeWriter, schema: JsonObject) -> None:
    writer.text(",parameters:{")
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and properties:
        writer.text("properties:{")
        _properties(writer, properties)
        writer.text("},")
    required = schema.get("required")
    if required:
        writer.text("required:")
        writer.strings(cast("Sequence[str]", required))
        writer.text(",")
    writer.text("type:")
    writer.string(_type_name(schema))
    writer.text("}")


def _response(writer: NativeWriter, response: JsonObject) -> None:
    writer.text(",response:{")
    description = response.get("description")
    if description:
        writer.text("description:")
        writer.string(str(description))
        writer.text(",")
    writer.text("type:")
    writer.string(_type_name(response))
    writer.text("}")


def _properties(writer: NativeWriter, properties: JsonObject, *, skip: frozenset[str] = frozenset()) -> None:
    """Write ``name:{...}`` for every property but the skipped ones."""
    first = True
    for name, schema in sorted_items(properties):
        if name in skip:
            continue
        if not first:
            writer.text(",")
        first = False
        writer.text(name, ":{")
        _property(writer, schema if isinstance(schema, Mapping) else {})
        writer.text("}")


def _property(writer: NativeWriter, schema: JsonObject) -> None:
    """Write one property's schema without its braces."""
    kind = _type_name(schema)
    if schema.get("description"):
        writer.text("description:")
        writer.string(str(schema["description"]))
        writer.text(",")
    if kind == "STRING" and schema.get("enum"):
        writer.text("enum:")
        writer.value(schema["enum"], quote_keys=True)
        writer.text(",")
    elif kind == "ARRAY":
        items = schema.get("items")
        if isinstance(items, Mapping) and items:
            writer.text("items:{")
            _items(writer, items)
            writer.text("},")
    if schema.get("nullable"):
        writer.text("nullable:true,")
    if kind == "OBJECT":
        _object(writer, schema)
    writer.text("type:")
    writer.string(kind)


def _object(writer: NativeWriter, schema: JsonObject) -> None:
    properties = schema.get("properties")
    writer.text("properties:{")
    if isinstance(properties, Mapping):
        _properties(writer, properties)
    else:
        _properties(writer, schema, skip=_SCHEMA_KEYS)
    writer.text("},")
    if schema.get("required"):
        writer.text("required:")
        writer.strings(cast("Sequence[str]", schema["required"]))
        writer.text(",")


def _items(writer: NativeWriter, items: JsonObject) -> None:
    """Write the schema of an array's items: every key, sorted, unknown ones with delimited keys inside."""
    first = True
    for key, value in sorted_items(items):
        if value is None:
            continue
        if not first:
            writer.text(",")
        first = False
        writer.text(key, ":")
        if key == "properties":
            writer.text("{")
            if isinstance(value, Mapping):
                _properties(writer, value)
            writer.text("}")
        elif key == "required" and isinstance(value, Sequence):
            writer.strings([str(name) for name in value])
        elif key == "type":
            writer.value(_type_name(items))
        else:
            writer.value(value, quote_keys=True)


def _type_name(schema: JsonObject) -> str:
    """Return a type in capitals; empty where the schema has none."""
    kind = schema.get("type")
    return kind.upper() if isinstance(kind, str) else ""
