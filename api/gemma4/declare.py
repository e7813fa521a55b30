"""Tool declarations in Gemma 4's own notation, from schemas that ``api.gemma4.schema`` has normalised.

The form is the one the model was trained on: description, then enum or items, nullable, properties, required, and the
type last, in capitals. Rules: the fifth version of the family's template (9 July 2026).

A declaration is written as one text in which a character that the tool does not use stands for the string delimiter,
and is then split at it. That is several times as fast as keeping the pieces apart from the start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import cast

import orjson

from api.chat.request import JsonObject, ToolDefinition
from api.gemma4.native import native_text, sorted_items
from api.gemma4.prompt import check_length
from api.gemma4.schema import normalise
from api.gemma4.tokenizer import Gemma4Tokenizer

_SCHEMA_KEYS = frozenset({"description", "type", "properties", "required", "nullable"})
_PRIVATE_USE = 0xE000
"""First of the characters that are tried as delimiter: text hardly ever has one of them."""


def declaration_ids(
    tools: Sequence[ToolDefinition], tokenizer: Gemma4Tokenizer, context_tokens: int | None = None
) -> list[tuple[int, ...]]:
    """Return declarations with their two tokens each, as ids. Conversations repeat their tools: they are remembered.

    Raises:
        api.gemma4.errors.SchemaError: when the parameters of one are no usable JSON Schema.
        api.gemma4.errors.ContextError: when they cannot fit ``context_tokens``.
    """
    keys = [_cache_key(tool) for tool in tools]
    known = [tokenizer.declarations.get(key) if key else None for key in keys]
    new = [index for index, ids in enumerate(known) if ids is None]
    if not new:
        return cast("list[tuple[int, ...]]", known)
    texts: list[list[str]] = []
    characters = 0
    for index in new:
        mark = _unused_character(tools[index], keys[index])
        text = _declaration(tools[index], mark, f"tools.{index}.function")
        # One by one: what references of a few bytes stand for may be megabytes in each of thousands of tools.
        characters += len(text)
        check_length(characters, tokenizer, context_tokens, param="tools")
        texts.append(text.split(mark))
    # All at once: what is new to the vocabulary's memory is then tokenised in one go.
    encoded = iter(tokenizer.encode_all(list(chain.from_iterable(texts))))
    special = tokenizer.special
    for index, parts in zip(new, texts, strict=True):
        made = [special.tool_open]
        for ids in islice(encoded, len(parts)):
            made += ids
            made.append(special.quote)
        made[-1] = special.tool_close
        known[index] = tuple(made)
        if keys[index]:
            tokenizer.declarations.remember(keys[index], tuple(made))
    return cast("list[tuple[int, ...]]", known)


def _cache_key(tool: ToolDefinition) -> bytes:
    """Serialise what a declaration is made of; nothing where that cannot be done fast."""
    try:
        return orjson.dumps((tool.name, tool.description, tool.parameters, tool.response))
    except orjson.JSONEncodeError:
        return b""


def _unused_character(tool: ToolDefinition, key: bytes) -> str:
    """Return a character that nothing in the declaration holds."""
    if key:
        text = key.decode()
    else:
        text = json.dumps((tool.name, tool.description, tool.parameters, tool.response), ensure_ascii=False)
    code = _PRIVATE_USE
    while chr(code) in text:
        code += 1
    return chr(code)


def _declaration(tool: ToolDefinition, quote: str, param: str) -> str:
    """Return what stands between the two tool tokens."""
    parameters = response = ""
    if tool.parameters:
        parameters = _parameters(normalise(tool.parameters, param=f"{param}.parameters"), quote)
    if tool.response is not None:
        response = _response(tool.response, quote)
    description = f"{quote}{tool.description or ''}{quote}"
    return f"declaration:{tool.name}{{description:{description}{parameters}{response}}}"


def _parameters(schema: JsonObject, quote: str) -> str:
    properties = schema.get("properties")
    text = ""
    if isinstance(properties, Mapping) and properties:
        text = f"properties:{{{_properties(properties, quote)}}},"
    return f",parameters:{{{text}{_required(schema, quote)}type:{quote}{_type_name(schema)}{quote}}}"


def _required(schema: JsonObject, quote: str) -> str:
    """Write the list of required names, when there is one."""
    names = cast("Sequence[str]", schema.get("required"))
    return f"required:{_strings(names, quote)}," if names else ""


def _strings(values: Sequence[str], quote: str) -> str:
    texts = f"{quote},{quote}".join(values)
    return f"[{quote}{texts}{quote}]" if values else "[]"


def _response(response: JsonObject, quote: str) -> str:
    description = response.get("description")
    text = f"description:{quote}{description}{quote}," if description else ""
    return f",response:{{{text}type:{quote}{_type_name(response)}{quote}}}"


def _properties(properties: JsonObject, quote: str, *, skip: frozenset[str] = frozenset()) -> str:
    """Write ``name:{...}`` for every property but the skipped ones."""
    return ",".join(
        [
            f"{name}:{{{_property(schema if isinstance(schema, dict) else {}, quote)}}}"
            for name, schema in sorted_items(properties)
            if name not in skip
        ]
    )


def _property(schema: JsonObject, quote: str) -> str:
    """Write one property's schema without its braces."""
    kind = _type_name(schema)
    description = schema.get("description")
    text = f"description:{quote}{description}{quote}," if description else ""
    if len(schema) == 2 and description and kind not in ("", "OBJECT"):  # noqa: PLR2004 - there is no more to say
        return f"{text}type:{quote}{kind}{quote}"
    if kind == "STRING":
        if schema.get("enum"):
            text += f"enum:{native_text(schema['enum'], quote, quote_keys=True)},"
    elif kind == "ARRAY":
        items = schema.get("items")
        if isinstance(items, Mapping) and items:
            text += f"items:{{{_items(items, quote)}}},"
    if schema.get("nullable"):
        text += "nullable:true,"
    if kind == "OBJECT":
        properties = schema.get("properties")
        inner = _properties(properties, quote) if isinstance(properties, Mapping) else _own_keys(schema, quote)
        text += f"properties:{{{inner}}},{_required(schema, quote)}"
    return f"{text}type:{quote}{kind}{quote}"


def _own_keys(schema: JsonObject, quote: str) -> str:
    """Write the other keys of an object without properties as if they were properties, as the template does."""
    return _properties(schema, quote, skip=_SCHEMA_KEYS)


def _items(items: JsonObject, quote: str) -> str:
    """Write the schema of an array's items: every key, sorted, unknown ones with delimited keys inside."""
    return ",".join(
        [f"{key}:{_item_value(key, value, items, quote)}" for key, value in sorted_items(items) if value is not None]
    )


def _item_value(key: str, value: object, items: JsonObject, quote: str) -> str:
    if key == "properties":
        return f"{{{_properties(value, quote) if isinstance(value, Mapping) else ''}}}"
    if key == "required" and isinstance(value, Sequence):
        return _strings([str(name) for name in value], quote)
    if key == "type":
        return f"{quote}{_type_name(items)}{quote}"
    return native_text(value, quote, quote_keys=True)


def _type_name(schema: JsonObject) -> str:
    """Return a type in capitals; empty where the schema has none."""
    kind = schema.get("type")
    return kind.upper() if isinstance(kind, str) else ""
