"""Reads JSON request bodies within a limit."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from api.errors import BodyTooLargeError, MalformedJsonError, SlowBodyError
from api.media.lifting import LEAST_BYTES, LiftedBody, lift, remember


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
        value = _parse(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJsonError(_reason(error, body)) from error
    if not isinstance(value, dict):
        raise MalformedJsonError("The request body must be a JSON object.")
    return value


def _parse(body: bytes | bytearray) -> Any:
    """Parse a body; what ``api.media.lifting`` can lift out of it is left where it is."""
    lifted = lift(body) if len(body) >= LEAST_BYTES else LiftedBody(body)
    if not lifted.found:
        return orjson.loads(body)
    try:
        value = orjson.loads(lifted.rest)
    except orjson.JSONDecodeError:
        # Parsed whole, the fault is told at its own place.
        return orjson.loads(body)
    if not lifted.is_all_pictures(value):
        return orjson.loads(body)
    remember(lifted)
    return value


async def _read(request: Request, max_bytes: int) -> bytes | bytearray:
    length = request.headers.get("content-length", "")
    declared = int(length[:20]) if length.isdecimal() else 0
    if declared > max_bytes:
        raise BodyTooLargeError(max_bytes)
    if declared >= LEAST_BYTES:
        return await _read_into(bytearray(declared), request)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLargeError(max_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _read_into(body: bytearray, request: Request) -> bytearray:
    """Read a large body to its place as it comes: joined at its end, it would hold up the event loop."""
    place = 0
    with memoryview(body) as view:
        async for chunk in request.stream():
            part = chunk[: len(body) - place]
            view[place : place + len(part)] = part
            place += len(part)
    if place < len(body):
        del body[place:]
    return body


def _reason(error: orjson.JSONDecodeError, body: bytes | bytearray) -> str:
    if not body:
        return "The request body is empty; a JSON object is expected."
    return f"The request body is not valid JSON (line {error.lineno}, column {error.colno})."
