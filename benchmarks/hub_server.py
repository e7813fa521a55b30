"""``python -m benchmarks.hub_server FILE SHA256 PACE``: as much of the Hugging Face hub as downloading one file needs.

Prints its port. Counts the bytes of the file that it sent; ``/count`` tells. PACE is the bytes per second of one
connection, 0 for as fast as it goes.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

REPOSITORY: Final = "bench/model"
COMMIT: Final = "b" * 40
FILE: Final = "model.safetensors"
_COUNTED: Final = 256 * 1024


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    sent = 0
    file: Path
    sha256: str
    pace: float

    def handle_error(self, *_: object) -> None:
        """Do nothing: clients are killed here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    """One repository with one large file."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        size = self.server.file.stat().st_size
        facts = {"type": "file", "path": FILE, "size": size, "oid": "1" * 40}
        if self.path == "/count":
            self._json({"sent": self.server.sent})
        elif "/tree/" in self.path:
            self._json([facts | {"lfs": {"oid": self.server.sha256, "size": size, "pointerSize": 134}}])
        elif self.path.startswith("/api/models/"):
            names = [{"rfilename": FILE}]
            self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": names, "private": False, "tags": []})
        elif "/resolve/" in self.path:
            self._file(size)
        else:  # what the library asks besides is none of a download
            self.send_error(404)

    def _json(self, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, size: int) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2] or size - 1)) if asked else (0, size - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        for name, value in {
            "Content-Length": end + 1 - start, "ETag": f'"{self.server.sha256}"', "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes", "X-Linked-Etag": f'"{self.server.sha256}"', "X-Linked-Size": size,
        }.items():  # fmt: skip
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        with self.server.file.open("rb") as file:
            while start <= end:
                count = os.sendfile(self.connection.fileno(), file.fileno(), start, min(_COUNTED, end + 1 - start))
                start += count
                self.server.sent += count
                if self.server.pace:
                    time.sleep(count / self.server.pace)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def main() -> None:
    """Serve until the process is ended."""
    file, sha256, pace = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    server = _Server(("127.0.0.1", 0), _Handler)
    server.file, server.sha256, server.pace = file, sha256, pace
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
