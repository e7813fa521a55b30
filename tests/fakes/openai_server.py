"""A small OpenAI-style server with scripted answers, for programs that are its clients; it keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Delta = dict[str, Any]
Wait = Callable[[], None]
"""Between two deltas: an answer that goes on only when the test says so."""


@dataclass
class Script:
    """How the server behaves; a test may change it while it runs.

    ``answer`` holds deltas, and callables that are waited for. ``refusal`` is a status and an error message. Before
    ``ready`` is set the readiness route answers 503 with ``phase``. ``closed`` is set when a client goes away early.
    """

    answer: Sequence[Delta | Wait] = ({"content": "Hello"}, {"content": "!"})
    finish_reason: str = "stop"
    refusal: tuple[int, str] | None = None
    breaks_off: bool = False
    is_ready: bool = True
    phase: dict[str, Any] = field(default_factory=lambda: {"phase": "loading"})
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": "fake-model"}, {"id": "other"}]})
        elif self.path == "/v1/health/ready":
            self._send(200, {"status": "ready"}) if self.script.is_ready else self._send(503, self.script.phase)
        else:
            self._send(404, {"error": {"message": "no such route"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.script.requests.append(body)
        self.script.headers.append(dict(self.headers.items()))
        if self.script.refusal is not None:
            status, message = self.script.refusal
            self._send(status, {"error": {"message": message, "type": "invalid_request_error"}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for payload in self._events(body):
                self._chunk(payload)
        except OSError:
            self.script.closed.set()
            self.close_connection = True

    def _events(self, body: dict[str, Any]) -> Iterator[bytes]:
        sent = 0
        for step in self.script.answer:
            if callable(step):
                step()
                continue
            sent += 1
            yield _event({"choices": [{"index": 0, "delta": step, "finish_reason": None}]})
        if self.script.breaks_off:
            raise BrokenPipeError
        reason = self.script.finish_reason
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        words = sum(len(str(message["content"]).split()) for message in body["messages"])
        yield _event({"choices": [], "usage": {"prompt_tokens": 5 + 2 * words, "completion_tokens": sent}})
        yield b"data: [DONE]\n\n"
        yield b""

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, record: dict[str, Any]) -> None:
        data = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _event(record: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(record).encode() + b"\n\n"


@dataclass
class FakeServer:
    """A running server: its address and its script."""

    url: str
    script: Script


@contextmanager
def openai_server(script: Script | None = None) -> Iterator[FakeServer]:
    """Serve on a free port of this machine."""
    chosen = script or Script()
    handler = type("Handler", (_Handler,), {"script": chosen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield FakeServer(f"http://127.0.0.1:{server.server_address[1]}", chosen)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
