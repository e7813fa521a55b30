"""Errors of gRPC become ``engine.errors`` here and nowhere else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from engine.errors import EngineUnavailableError
from engine.wire import decode_error

if TYPE_CHECKING:
    from collections.abc import Iterator

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
