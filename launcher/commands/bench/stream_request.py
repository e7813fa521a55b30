"""Sends one streamed request over asyncio and notes when what arrived.

A client of its own, because time spent here counts as the server's: bytes are stamped as they arrive and taken apart at
once only as far as needed to tell events that carry text from those that do not.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.commands.event_stream import EventStreamDecoder
from launcher.commands.server_client import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, Server, json_value, refusal

READ_BYTES: Final = 65_536
LINE_LIMIT: Final = 1 << 20
OK: Final = 200


@dataclass(slots=True)
class Sample:
    """What one request showed; times are seconds of ``time.perf_counter``.

    Attributes:
        sent: when the request had been written to an open connection.
        arrivals: when each event that carried text or thought arrived.
        error: why there is no complete answer; empty for a good one.
    """

    sent: float = 0.0
    ended: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""


async def measure(server: Server, path: str, body: Mapping[str, Any]) -> Sample:
    """Send one request and read its answer to the end; faults are noted in the sample, never raised."""
    sample = Sample()
    try:
        reader, writer = await asyncio.wait_for(_connect(server), CONNECT_TIMEOUT_S)
        try:
            writer.write(_request(server, path, json.dumps(body).encode()))
            await writer.drain()
            sample.sent = time.perf_counter()
            await _read(reader, sample)
        finally:
            writer.close()
    except TimeoutError:
        sample.error = "no answer in time"
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        sample.error = f"the connection failed: {reason}"
    sample.ended = time.perf_counter()
    return sample


async def _connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = (server.tls or ssl.create_default_context()) if server.scheme == "https" else None
    return await asyncio.open_connection(server.host, server.port, ssl=context, limit=LINE_LIMIT)


def _request(server: Server, path: str, data: bytes) -> bytes:
    host = f"[{server.host}]" if ":" in server.host else server.host
    headers = server.headers() | {
        "Host": f"{host}:{server.port}",
        "Content-Length": str(len(data)),
        "Connection": "close",
    }
    lines = [f"POST {server.prefix}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def _read(reader: asyncio.StreamReader, sample: Sample) -> None:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_TIMEOUT_S)
    status = int(head.split(b" ", 2)[1])
    is_chunked = b"transfer-encoding: chunked" in head.lower()
    pieces = _pieces(reader, is_chunked=is_chunked)
    if status != OK:
        record = json_value(b"".join([piece async for piece in pieces]))
        sample.error = refusal(status, record).message
        return
    decoder = EventStreamDecoder()
    async for piece in pieces:
        now = time.perf_counter()
        for event in decoder.feed(piece):
            _note(event, now, sample)
    if not decoder.is_done and not sample.error:
        sample.error = "the connection ended in the middle of the answer"


async def _pieces(reader: asyncio.StreamReader, *, is_chunked: bool) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, without the framing of chunks."""
    if not is_chunked:
        while data := await asyncio.wait_for(reader.read(READ_BYTES), ANSWER_TIMEOUT_S):
            yield data
        return
    while size := int((await asyncio.wait_for(reader.readuntil(b"\r\n"), ANSWER_TIMEOUT_S)).split(b";")[0], 16):
        yield await asyncio.wait_for(reader.readexactly(size), ANSWER_TIMEOUT_S)
        await reader.readexactly(2)


def _note(event: dict[str, Any], now: float, sample: Sample) -> None:
    if "error" in event:
        sample.error = refusal(None, event).message
    usage = event.get("usage")
    if isinstance(usage, dict):
        sample.prompt_tokens = usage.get("prompt_tokens") or 0
        sample.completion_tokens = usage.get("completion_tokens") or 0
        sample.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        if delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content") or delta.get("tool_calls"):
            sample.arrivals.append(now)
