"""The description of the API for programs, ``/openapi.json``: FastAPI's, with what generators of clients need besides.

Bodies are described by the schemas that check them. Answers are written as bytes, so their form stands here.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from fastapi import FastAPI

from api.dialects.openai_chat import ChatCompletionRequest
from api.dialects.openai_notes import CHAT_NOTES

_Schema = dict[str, Any]
_PREFIX: Final = "#/components/schemas/"


def _object(required: tuple[str, ...], **properties: _Schema) -> _Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _nullable(schema: _Schema) -> _Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> _Schema:
    return {"$ref": f"{_PREFIX}{name}"}


_TEXT: Final[_Schema] = {"type": "string"}
_COUNT: Final[_Schema] = {"type": "integer"}
_ANSWERS: Final[_Schema] = {
    "Error": _object(
        ("error",),
        error=_object(
            ("message", "type", "param", "code"),
            message=_TEXT,
            type=_TEXT,
            param=_nullable(_TEXT) | {"description": "Path of the field at fault"},
            code=_nullable(_TEXT),
        ),
    ),
    "ToolCall": _object(
        ("id", "type", "function"),
        id=_TEXT,
        type={"const": "function"},
        function=_object(("name", "arguments"), name=_TEXT, arguments=_TEXT | {"description": "A JSON object as text"}),
    ),
    "AnswerMessage": _object(
        ("role", "content"),
        role={"const": "assistant"},
        content=_nullable(_TEXT),
        refusal={"type": "null"},
        reasoning=_TEXT | {"description": "The thought"},
        reasoning_content=_TEXT | {"description": "The same as reasoning"},
        tool_calls=_list(_ref("ToolCall")),
    ),
    "Choice": _object(
        ("index", "message", "finish_reason"),
        index=_COUNT,
        message=_ref("AnswerMessage"),
        logprobs=_nullable({"type": "object"}),
        finish_reason={"enum": ["stop", "length", "tool_calls"]},
        token_ids=_list(_COUNT),
    ),
    "Usage": _object(
        ("prompt_tokens", "completion_tokens", "total_tokens"),
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details={"type": "object"},
        completion_tokens_details={"type": "object"},
    ),
    "ChatCompletion": _object(
        ("id", "object", "created", "model", "choices", "usage"),
        id=_TEXT,
        object={"const": "chat.completion"},
        created=_COUNT,
        model=_TEXT,
        choices=_list(_ref("Choice")),
        usage=_ref("Usage"),
        prompt_token_ids=_list(_COUNT),
    ),
}
_CHAT_CONTENT: Final[_Schema] = {
    "application/json": {"schema": _ref("ChatCompletion")},
    "text/event-stream": {"schema": _TEXT | {"description": "With stream: chat.completion.chunk events, then [DONE]"}},
}
_TEXT_CONTENT: Final[_Schema] = {"text/plain": {"schema": _TEXT}}
_CONTENTS: Final = {
    "/v1/chat/completions": _CHAT_CONTENT,
    "/metrics": _TEXT_CONTENT,
    "/v1/metrics": _TEXT_CONTENT,
}
"""What the answers of routes that FastAPI cannot look into hold."""
_ERROR: Final[_Schema] = {"description": "An error", "content": {"application/json": {"schema": _ref("Error")}}}


class Application(FastAPI):
    """A FastAPI application that describes itself in full."""

    def openapi(self) -> dict[str, Any]:
        """Return the description; made once."""
        if self.openapi_schema is None:
            # Parts of it belong to the routes.
            self.openapi_schema = _completed(copy.deepcopy(super().openapi()))
        return self.openapi_schema


def _completed(description: _Schema) -> _Schema:
    """Put the schemas of bodies where references look for them, and describe answers."""
    schemas: _Schema = copy.deepcopy(_ANSWERS)
    for path, operations in description["paths"].items():
        for operation in operations.values():
            # Parameters that are wrong are errors as all others, never FastAPI's own.
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _ERROR
            if path in _CONTENTS:
                operation["responses"]["200"]["content"] = _CONTENTS[path]
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content:
                body = content["schema"]
                schemas |= body.pop("$defs", {})
                schemas[body["title"]] = body
                content["schema"] = _ref(body["title"])
    _add_notes(schemas[ChatCompletionRequest.__name__])
    description["components"] = {"schemas": schemas}
    return description


def _add_notes(request: _Schema) -> None:
    """Explain the fields of a chat request, and put them in the order of the explanations."""
    fields = request["properties"]
    request["properties"] = {name: {**fields[name], "description": note} for name, note in CHAT_NOTES.items()}
