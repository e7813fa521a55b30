"""A server that has to download its model first: probes are answered all the while, and tell how far it is."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from config.environment import child_environment
from tests.fakes import console
from tests.fakes.processes import free_port, wait_until

MODEL = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe" / "model.gguf"
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
SIZE = 16 * 2**20
"""The model with bytes behind it that mean nothing, so that it comes in several pieces."""


class _Source(http.server.BaseHTTPRequestHandler):
    """Serves the model's file by ranges; those of the second half wait until it may go on."""

    may_go_on: threading.Event

    def do_GET(self) -> None:
        body = MODEL.read_bytes().ljust(SIZE, b"\0")
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or SIZE), SIZE - 1)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("content-length", str(end + 1 - start))
        self.send_header("content-range", f"bytes {start}-{end}/{SIZE}")
        self.send_header("accept-ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        if start >= SIZE // 2:
            self.may_go_on.wait(100)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body[start : end + 1])

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def source() -> Iterator[tuple[str, threading.Event]]:
    may_go_on = threading.Event()
    handler = type("Handler", (_Source,), {"may_go_on": may_go_on})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/model.gguf", may_go_on
    may_go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_probes_are_answered_during_the_download(source: tuple[str, threading.Event], tmp_path: Path) -> None:
    """Live is 200 before a byte is there; ready tells phase, bytes done, bytes in all; then the model is served.

    It was named by its address, which is fetched, looked at and planned for, and serves under the name that was given.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    kept = {name: value for name, value in child_environment({}).items() if not name.startswith("NIM_")}
    variables = {"NIM_CACHE_PATH": str(tmp_path / "cache"), "NIM_SERVER_PORT": str(port)}
    bodies: list[dict[str, Any]] = []

    def body() -> dict[str, Any]:
        try:
            bodies.append(requests.get(f"{url}/health/ready", timeout=60).json())
        except requests.ConnectionError:
            return {}
        return bodies[-1]

    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [console.script("nim-serve"), source[0], "--served-model-name", "mine"],
            stdout=log,
            stderr=log,
            env=kept | variables,
        ) as server,
    ):
        try:
            wait_until(lambda: body().get("bytes_done", 0) > 0, what="first half")
            assert requests.get(f"{url}/health/live", timeout=60).status_code == 200
            assert requests.post(f"{url}/chat/completions", json={}, timeout=60).status_code == 503
            source[1].set()
            wait_until(lambda: body().get("status") == "ready", what="ready")
            assert [model["id"] for model in requests.get(f"{url}/models", timeout=60).json()["data"]] == ["mine"]
            asked = requests.post(f"{url}/chat/completions", json=QUESTION, timeout=60).json()
            assert "Paris" in asked["choices"][0]["message"]["content"]
        finally:
            server.terminate()
        assert server.wait(100) == 0, (tmp_path / "log").read_text()

    downloading = [body for body in bodies if body.get("phase") == "downloading"]
    assert 0 < downloading[-1]["bytes_done"] <= downloading[-1]["bytes_total"] == SIZE
    assert [key for key in ("phase", "bytes_done", "bytes_total", "eta_seconds") if key not in downloading[-1]] == []
