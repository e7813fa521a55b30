"""Every spelling of an output format: OpenAI's ``response_format``, vLLM's ``structured_outputs`` and older ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from api.chat.request import (
    ChoiceFormat,
    GrammarFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    ResponseFormat,
    TextFormat,
)
from api.dialects.schema import Fields
from api.errors import BadRequestError

SchemaText = dict[str, Any] | str
Choices = Annotated[list[str], Field(min_length=1, max_length=10_000)]


class TextFormatInput(Fields):
    """Free text."""

    type: Literal["text"]


class JsonObjectInput(Fields):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Fields):
    """A JSON Schema with OpenAI's wrapping. ``name`` and ``description`` are labels for people."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaInput(Fields):
    """JSON that obeys a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormatField = Annotated[TextFormatInput | JsonObjectInput | JsonSchemaInput, Field(discriminator="type")]


class StructuredOutputs(Fields):
    """vLLM's object: exactly one of its members."""

    json_: SchemaText | None = Field(default=None, alias="json")
    json_object: Literal[True] | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None


class GuidedFields(Fields):
    """The older flat names of the same."""

    guided_json: SchemaText | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None

    def to_formats(self, prefix: str) -> list[ResponseFormat]:
        """Return the formats that are asked for; ``prefix`` is the path before each name."""
        return _formats(
            self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar, path=f"{prefix}guided_"
        )


class FormatFields(GuidedFields):
    """The part of a request that is about the output's format."""

    response_format: ResponseFormatField | None = None
    structured_outputs: StructuredOutputs | None = None

    def to_format(self, nvext: GuidedFields | None) -> ResponseFormat:
        """Translate; ``nvext`` holds the same names inside the ``nvext`` object.

        Raises:
            BadRequestError: when more than one format is asked for, or a schema given as text is no JSON.
        """
        formats = self.to_formats("") + (nvext.to_formats("nvext.") if nvext else [])
        outputs = self.structured_outputs
        if outputs is not None:
            formats += _formats(
                outputs.json_, outputs.regex, outputs.choice, outputs.grammar, path="structured_outputs."
            )
            formats += [JsonObjectFormat()] if outputs.json_object else []
        response_format = self.response_format
        if isinstance(response_format, JsonSchemaInput):
            schema = response_format.json_schema
            formats.append(JsonSchemaFormat(schema.schema_, strict=schema.strict is not False))
        elif isinstance(response_format, JsonObjectInput):
            formats.append(JsonObjectFormat())
        if len(formats) > 1:
            raise BadRequestError("More than one output format is asked for.", param="response_format")
        return formats[0] if formats else TextFormat()


def _formats(
    schema: SchemaText | None, regex: str | None, choice: list[str] | None, grammar: str | None, *, path: str
) -> list[ResponseFormat]:
    formats: list[ResponseFormat] = []
    if schema is not None:
        formats.append(JsonSchemaFormat(_load(schema, f"{path}json"), param=f"{path}json"))
    if regex is not None:
        formats.append(RegexFormat(regex, param=f"{path}regex"))
    if choice is not None:
        formats.append(ChoiceFormat(tuple(choice), param=f"{path}choice"))
    if grammar is not None:
        formats.append(GrammarFormat(grammar, param=f"{path}grammar"))
    return formats


def _load(schema: SchemaText, param: str) -> dict[str, Any] | bool:
    """Return a schema that may be given as JSON text."""
    if not isinstance(schema, str):
        return schema
    try:
        # As strict as the body's own: no NaN, no halves of characters.
        value = orjson.loads(schema)
    except orjson.JSONDecodeError as error:
        raise BadRequestError("The schema is not valid JSON.", param=param) from error
    if not isinstance(value, dict | bool):
        raise BadRequestError("The schema must be a JSON object.", param=param)
    return value
