"""Errors of gRPC become ``engine.errors`` here and nowhere else, and words for whoever set up the connection."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from engine.errors import EngineUnavailableError
from engine.wire import decode_error

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOSED = "it closes the connection, as one does that wants TLS (NIM_ENGINE_TLS), or a certificate (NIM_ENGINE_TLS_CERT)"
REASONS = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is from no authority that is trusted here (NIM_ENGINE_TLS_CA)"),
    ("Hostname Verification", "its certificate is for another name (NIM_ENGINE_TLS_SERVER_NAME)"),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS (NIM_ENGINE_TLS and the settings beside it)"),
    *((part, CLOSED) for part in ("closed", "reset by peer", "Broken pipe")),
)
"""What a text of gRPC's holds, and what it means."""
UNAVAILABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


@contextmanager
def translated() -> Iterator[None]:
    """Turn gRPC's errors into the engine layer's."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        if error.code() in UNAVAILABLE:
            message = "the engine was lost or cannot be reached"
            raise EngineUnavailableError(message) from error
        raise decode_error(details) from error


def is_unreachable(error: EngineUnavailableError) -> bool:
    """Tell whether the call has found nobody, other than one that was not answered in time."""
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.UNAVAILABLE


def reason_of(error: BaseException) -> str:
    """Return in words why a server was never reached, for logs: it may hold addresses, which no client is told."""
    cause = error.__cause__
    text = (cause.details() or "") if isinstance(cause, grpc.aio.AioRpcError) else str(error)
    return next((words for part, words in REASONS if part.lower() in text.lower()), text)
