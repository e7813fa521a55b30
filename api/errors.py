"""Errors that a client of the API sees: status, type, code, param and a message that is safe to show.

No web import: ``api.http.errors`` writes the bodies. Errors of the canonical request (``api.chat.errors``) and of the
engine (``engine.errors``) are translated here, so that every dialect shows one and the same fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from api.chat.errors import ChatError
from engine.errors import (
    ContextOverflowError,
    EngineError,
    EngineUnavailableError,
    GrammarMismatchError,
    InvalidGrammarError,
    InvalidImageError,
    InvalidRequestError,
    QueueFullError,
    UnknownAdapterError,
)


class ApiError(Exception):
    """Base of everything that the API answers with instead of a result."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers that belong to this error."""
        return {}

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return OpenAI's error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequestError(ApiError):
    """The request is at fault; ``param`` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class MalformedJsonError(BadRequestError):
    """The body is not JSON, or not a JSON object."""

    code = "malformed_json"


class UnknownFieldError(BadRequestError):
    """A field that this server does not know or does not support."""

    code = "unknown_field"


class ContextLengthError(BadRequestError):
    """Prompt and answer do not fit the context."""

    code = "context_length_exceeded"


class MediaError(BadRequestError):
    """A picture that cannot be used; ``param`` names the message and part."""

    code = "invalid_image"


class RouteNotFoundError(ApiError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class MethodNotAllowedError(ApiError):
    """The path exists, but not for this method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class ModelNotFoundError(ApiError):
    """The request names a model that is not served here."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"

    def __init__(self, model: str, *, param: str | None = "model") -> None:
        super().__init__(f"The model {_quote(model)} does not exist.", param=param)


class ModelGoneError(ModelNotFoundError):
    """The engine has no adapter of the request's name, or not any more."""

    def __init__(self, message: str) -> None:
        ApiError.__init__(self, message, param="model")


class BodyTooLargeError(ApiError):
    """The request body exceeds the limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request body is larger than {limit_bytes} bytes.")


class SlowBodyError(ApiError):
    """The client did not send its body in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"The request body did not arrive within {limit_s:.0f} seconds.")


class RetryableError(ApiError):
    """A fault of the moment: the same request may succeed ``retry_after_s`` seconds later."""

    retry_after_s: ClassVar[int] = 1

    @property
    def headers(self) -> Mapping[str, str]:
        """Tell clients when to come back, as HTTP has it and in the finer form that OpenAI's SDKs prefer.

        All who are refused at once would come back at once, so each is told another moment of half a second.
        """
        # Nothing secret hangs on it.
        wait_ms = int(1000 * (self.retry_after_s + random.random() / 2))  # noqa: S311
        return {"retry-after": str(self.retry_after_s), "retry-after-ms": str(wait_ms)}


class OverloadedError(RetryableError):
    """More requests wait than the engine's queue holds."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class QueueTimeoutError(OverloadedError):
    """A request waited too long for its turn."""

    code = "queue_timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"The server is busy: the answer did not begin within {limit_s:g} seconds. Try again shortly.")


class UnavailableError(RetryableError):
    """The engine is loading, was lost, or the server is shutting down."""

    status = 503
    type = "service_unavailable"
    code = "engine_unavailable"
    retry_after_s = 2


class InternalError(ApiError):
    """Something unexpected; the log has the details under the request id."""

    code = "internal_error"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"The server failed to process the request (request id {request_id}).")


def to_api_error(error: Exception) -> ApiError | None:
    """Translate a known error of any layer below; None for one that is unexpected."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ChatError):
        return BadRequestError(_sentence(error.message), param=error.param, code=error.code)
    if isinstance(error, EngineError):
        return _from_engine(error)
    return None


def _from_engine(error: EngineError) -> ApiError:
    for kind, translate in _ENGINE_ERRORS:
        if isinstance(error, kind):
            return translate(_sentence(error.message))
    return ApiError("The engine failed to process the request.", code="engine_error")


def _sentence(text: str) -> str:
    """Write an internal message the way clients read it."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else "The request cannot be run."


def _quote(text: str, limit: int = 200) -> str:
    """Show a caller's text in a message, shortened."""
    return f"`{text if len(text) <= limit else text[:limit] + '...'}`"


_ENGINE_ERRORS: Final[tuple[tuple[type[EngineError], Callable[[str], ApiError]], ...]] = (
    (ContextOverflowError, lambda text: ContextLengthError(text, param="messages")),
    (UnknownAdapterError, ModelGoneError),
    (InvalidGrammarError, lambda text: BadRequestError(text, param="response_format", code="invalid_grammar")),
    (GrammarMismatchError, lambda text: BadRequestError(text, param="continue_final_message")),
    (InvalidImageError, lambda text: MediaError(text, param="messages")),
    (InvalidRequestError, BadRequestError),
    (QueueFullError, lambda _: OverloadedError("The server is busy: its queue is full. Try again shortly.")),
    (EngineUnavailableError, lambda _: UnavailableError("The engine is not available. Try again shortly.")),
)
"""What a client sees of each engine error; derived classes stand before their bases."""
