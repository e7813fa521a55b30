"""Errors of Gemma 4's format: a vocabulary that lacks tokens, and requests that do not fit or cannot be constrained."""

from __future__ import annotations

from api.chat.errors import ChatError


class VocabularyError(Exception):
    """The tokenizer is not a Gemma 4 one; a fault of the installation, never of a request."""


class ContextError(ChatError):
    """Prompt and answer do not fit the context."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message, param=param, code="context_length_exceeded")

    @classmethod
    def of_prompt(cls, tokens: str, context_tokens: int, *, param: str = "messages") -> ContextError:
        """Make the error of a prompt that is too long; ``tokens`` says how many it has."""
        return cls(
            f"the prompt has {tokens} tokens; the context holds {context_tokens}, "
            "of which at least one must be left for the answer",
            param=param,
        )


class SchemaError(ChatError):
    """A JSON Schema, regular expression or grammar that cannot be honoured. ``message`` names the keyword."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, param=param, code="invalid_schema")
