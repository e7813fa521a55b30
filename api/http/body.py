"""Reads JSON request bodies within a limit."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request

from api.errors import BodyTooLargeError, MalformedJsonError, SlowBodyError
from api.http.limits import MAX_DEPTH, check_crowd, check_depth
from api.http.refusals import DeepJsonError, EncodedBodyError
from api.http.turns import Turns
from api.media import large_body
from api.media.large_body import LargeBody
from api.media.lifting import LEAST_BYTES, LiftedBody, lift, remember, whole

_PLAIN: Final = frozenset({"", "identity"})
_turns = Turns()
"""For all large bodies of this process."""


class ClientGoneError(Exception):
    """The client closed the connection; nobody waits for an answer."""


async def read_json_object(
    request: Request, *, max_bytes: int, timeout_s: float, max_depth: int = MAX_DEPTH
) -> dict[str, Any]:
    """Return the decoded body.

    Raises:
        EncodedBodyError: when it is compressed.
        BodyTooLargeError: as soon as the limit is passed.
        SlowBodyError: when it does not arrive in time.
        MalformedJsonError: when the body is not a JSON object.
        CrowdedJsonError: when it has far too many values.
        DeepJsonError: when it has more than ``max_depth`` levels.
        ClientGoneError: when the client leaves while sending.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in _PLAIN:
        raise EncodedBodyError
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
        if "depth limit" in str(error):
            raise DeepJsonError(max_depth) from error
        raise MalformedJsonError(_reason(error, body)) from error
    if not isinstance(value, dict):
        raise MalformedJsonError("The request body must be a JSON object.")
    check_depth(value, max_depth)
    return value


def _parse(body: bytes | LargeBody) -> Any:
    """Parse a body; what ``api.media.lifting`` can lift out of it is left where it is."""
    lifted = lift(body) if len(body) >= LEAST_BYTES else LiftedBody(whole(body))
    if not lifted.found:
        return _loads(whole(body))
    try:
        value = _loads(lifted.rest)
    except orjson.JSONDecodeError:
        # Parsed whole, the fault is told at its own place.
        return _loads(whole(body))
    if not lifted.is_all_pictures(value):
        return _loads(whole(body))
    remember(lifted)
    return value


def _loads(data: bytes | memoryview) -> Any:
    check_crowd(data)
    return orjson.loads(data)


async def _read(request: Request, max_bytes: int) -> bytes | LargeBody:
    length = request.headers.get("content-length", "")
    declared = int(length[:20]) if length.isdecimal() else 0
    if declared > max_bytes:
        raise BodyTooLargeError(max_bytes)
    chunks: list[bytes] = []
    large = LargeBody(declared) if declared >= large_body.LEAST_BYTES else None
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLargeError(max_bytes)
        if large is None and size >= large_body.LEAST_BYTES:
            # Its length was not announced. Memory that nothing is written to costs nothing.
            large = LargeBody(max_bytes)
            for earlier in chunks:
                large.append(earlier)
        if large is None:
            chunks.append(chunk)
        else:
            large.append(chunk)
            await _turns.take()
    return b"".join(chunks) if large is None else large


def _reason(error: orjson.JSONDecodeError, body: bytes | LargeBody) -> str:
    if not body:
        return "The request body is empty; a JSON object is expected."
    if "byte order mark" in error.msg:
        return "The request body begins with a byte order mark, which is no JSON. Send UTF-8 without one."
    if "UTF-8" in error.msg:
        return "The request body is not UTF-8, in which JSON is sent."
    return f"The request body is not valid JSON (line {error.lineno}, column {error.colno})."
