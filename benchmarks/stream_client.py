"""``python -m benchmarks.stream_client``: reads many streamed answers at once, cheaply, and prints what it got.

It only stores bytes while the answers run; the events are taken apart afterwards, so that reading costs the measured
server nothing. Its output is one JSON object: the seconds it took, answers, events, and characters of text.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import uvloop

_HEADER_END = b"\r\n\r\n"


def request_bytes(port: int, model: str, max_tokens: int) -> bytes:
    """Return one whole HTTP request."""
    messages = [{"role": "user", "content": "Tell me a long story."}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": max_tokens, "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def read_answer(port: int, request: bytes) -> bytes:
    """Send a request and return everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request)
    data = await reader.read(-1)
    writer.close()
    return data


def texts_of(answer: bytes) -> list[str]:
    """Return the text of every event of a chunked answer.

    Raises:
        ValueError: the answer is no finished stream.
    """
    head, _, rest = answer.partition(_HEADER_END)
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer[:500].decode(errors="replace"))
    body = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body.append(rest[:length])
        rest = rest[length + 2 :]
    payloads = [line.removeprefix(b"data: ") for line in b"".join(body).split(b"\n\n") if line]
    if payloads[-1] != b"[DONE]":
        raise ValueError("the stream has no end: " + repr(payloads[-1]))
    deltas = [json.loads(payload)["choices"][0]["delta"] for payload in payloads[:-1]]
    return [delta["content"] for delta in deltas if delta.get("content")]


async def run(port: int, model: str, max_tokens: int, streams: int) -> dict[str, float]:
    """Read ``streams`` answers at once."""
    request = request_bytes(port, model, max_tokens)
    start = time.perf_counter()
    answers = await asyncio.gather(*(read_answer(port, request) for _ in range(streams)))
    elapsed = time.perf_counter() - start
    texts = [texts_of(answer) for answer in answers]
    return {
        "elapsed_s": elapsed,
        "answers": len(texts),
        "events": sum(len(events) for events in texts),
        "characters": sum(len(text) for events in texts for text in events),
    }


def main() -> None:
    """Run once and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    options = parser.parse_args()
    result = uvloop.run(run(options.port, options.model, options.max_tokens, options.streams))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
