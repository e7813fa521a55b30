"""Errors of the engine layer, and the names under which they travel over the wire.

No web or gRPC import: the wire maps ``code`` to a status, the API maps the class to its dialect.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of everything that the engine layer raises. ``message`` is safe to show to a client."""

    code: ClassVar[str] = "engine_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(EngineError):
    """The request cannot be run as it is: ids out of range, image places that do not match, a bad value."""

    code = "invalid_request"


class ContextOverflowError(InvalidRequestError):
    """The prompt leaves no room in the context."""

    code = "context_overflow"

    def __init__(self, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(f"the prompt has {prompt_tokens} tokens; this engine's context holds {context_tokens}")
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class UnknownAdapterError(InvalidRequestError):
    """The request names an adapter that the engine does not have, or not any more."""

    code = "unknown_adapter"


class InvalidGrammarError(InvalidRequestError):
    """The grammar does not compile."""

    code = "invalid_grammar"


class GrammarMismatchError(InvalidRequestError):
    """What the answer has begun with does not fit its grammar."""

    code = "grammar_mismatch"


class InvalidImageError(InvalidRequestError):
    """An image has a wrong size or cannot be encoded."""

    code = "invalid_image"


class QueueFullError(EngineError):
    """More requests wait than the queue holds."""

    code = "queue_full"


class EngineUnavailableError(EngineError):
    """The engine is loading, was lost, or cannot be reached."""

    code = "engine_unavailable"


class EngineLoadError(EngineError):
    """The model cannot be loaded: a file is missing, damaged, or not a Gemma 4."""

    code = "engine_load"


ERRORS_BY_CODE: dict[str, type[EngineError]] = {
    error.code: error
    for error in (
        EngineError,
        InvalidRequestError,
        ContextOverflowError,
        UnknownAdapterError,
        InvalidGrammarError,
        GrammarMismatchError,
        InvalidImageError,
        QueueFullError,
        EngineUnavailableError,
        EngineLoadError,
    )
}
