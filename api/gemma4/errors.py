"""Errors of Gemma 4's format: a vocabulary that lacks tokens, and requests that cannot be declared or constrained."""

from __future__ import annotations

from api.chat.errors import ChatError


class VocabularyError(Exception):
    """The tokenizer is not a Gemma 4 one; a fault of the installation, never of a request."""


class SchemaError(ChatError):
    """A JSON Schema, regular expression or grammar that cannot be honoured. ``message`` names the keyword."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="invalid_schema")
