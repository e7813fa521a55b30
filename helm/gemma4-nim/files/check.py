# ruff: noqa: INP001, S310, T201, TID251 - a script that talks to one server and to whoever reads the log
"""Checks one ability of a running server, for "helm test": python check.py TEST URL SECONDS [MODEL].

Needs nothing but Python. Exit code 0 if the server can do it; otherwise a line says what it did instead.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from typing import Any

CHAT = "/v1/chat/completions"
BUSY = (429, 503)
PAUSE_S = 1


def trust(url: str) -> ssl.SSLContext | None:
    """Return how the server's certificate is checked, by SSL_CERT_FILE or not at all, and what is shown to it.

    CLIENT_CERTIFICATE is a folder with tls.crt and tls.key.
    """
    if not url.startswith("https:"):
        return None
    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    folder = os.environ.get("CLIENT_CERTIFICATE")
    if folder:
        context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    return context


def call(url: str, path: str, deadline: float, body: dict[str, Any] | None = None) -> Any:
    """Send a request and return the open answer; while the server is loading, ask again until the deadline."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    if os.environ.get("NIM_API_KEY"):
        headers["authorization"] = f"Bearer {os.environ['NIM_API_KEY'].strip()}"
    request = urllib.request.Request(url + path, data, headers)
    while True:
        left = deadline - time.monotonic()
        try:
            return urllib.request.urlopen(request, timeout=max(left, PAUSE_S), context=trust(url))
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:500]
            if error.code not in BUSY or left <= PAUSE_S:
                sys.exit(f"{path} answered {error.code}: {text}")
        except OSError as error:
            if left <= PAUSE_S:
                sys.exit(f"{url}{path} cannot be reached: {error}")
        time.sleep(PAUSE_S)


def served_model(url: str, wanted: str, deadline: float) -> str:
    """Return the model to ask for: the wanted one if it is served, or the first."""
    names = [str(model["id"]) for model in json.load(call(url, "/v1/models", deadline))["data"]]
    if not names:
        sys.exit("/v1/models lists no model")
    if wanted and wanted not in names:
        sys.exit(f"model.name is {wanted}, but the server has: {', '.join(names)}")
    return wanted or names[0]


def question(model: str, content: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 16}


def check_answer(url: str, body: dict[str, Any], deadline: float) -> None:
    """Ask, and see that an answer came with its length."""
    answer = json.load(call(url, CHAT, deadline, body))
    choice, usage = answer["choices"][0], answer["usage"]
    if choice["message"]["role"] != "assistant" or not usage["completion_tokens"]:
        sys.exit(f"no answer came: {json.dumps(answer)[:500]}")
    print(f"answered: {choice['message'].get('content')!r}")


def check_stream(url: str, body: dict[str, Any], deadline: float) -> None:
    """Ask for a stream, and see that it comes in parts and ends as it must."""
    lines = call(url, CHAT, deadline, {**body, "stream": True})
    events = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    if not events or events[-1] != b"[DONE]":
        sys.exit(f"the stream did not end with [DONE]: {events[-1:]}")
    parts = [json.loads(event) for event in events[:-1]]
    if any("error" in part for part in parts) or not any(part.get("choices") for part in parts):
        sys.exit(f"the stream holds no answer: {parts[-1:]}")
    print(f"streamed {len(parts)} parts")


def red_square(size: int = 64) -> str:
    """Return a PNG as a data URL."""
    rows = (b"\0" + b"\xff\0\0" * size) * size

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def main(test: str, url: str, seconds: str, wanted: str = "") -> None:
    """Run one test."""
    deadline = time.monotonic() + float(seconds)
    model = served_model(url, wanted, deadline)
    if test == "models":
        print(f"serves {model}")
    elif test == "chat":
        check_answer(url, question(model, "Say hello."), deadline)
    elif test == "stream":
        check_stream(url, question(model, "Count to three."), deadline)
    elif test == "picture":
        picture = {"type": "image_url", "image_url": {"url": red_square()}}
        check_answer(url, question(model, [picture, {"type": "text", "text": "What colour is it?"}]), deadline)
    else:
        sys.exit(f"there is no test {test}: models, chat, stream or picture")


if __name__ == "__main__":
    main(*sys.argv[1:])
