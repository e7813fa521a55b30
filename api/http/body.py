"""Reads JSON request bodies within a limit."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from api.errors import BodyTooLargeError, MalformedJsonError, SlowBodyError


class ClientGoneError(Exception):
    """The client closed the connection; nobody waits for an answer."""


async def read_json_object(request: Request, *, max_bytes: int, timeout_s: float) -> dict[str, Any]:
    """Return the decoded body.

    Raises:
        BodyTooLargeError: as soon as the limit is passed.
        SlowBodyError: when it does not arrive in time.
        MalformedJsonError: when the body is not a JSON object.
        ClientGoneError: when the client leaves while sending.
    """
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read(request, max_bytes)
    except TimeoutError as error:
        raise SlowBodyError(timeout_s) from error
    except ClientDisconnect as error:
        raise ClientGoneError from error
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJsonError(_reason(error, body)) from error
    if not isinstance(value, dict):
        raise MalformedJsonError("The request body must be a JSON object.")
    return value


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise BodyTooLargeError(max_bytes)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLargeError(max_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _reason(error: orjson.JSONDecodeError, body: bytes) -> str:
    if not body:
        return "The request body is empty; a JSON object is expected."
    return f"The request body is not valid JSON (line {error.lineno}, column {error.colno})."
