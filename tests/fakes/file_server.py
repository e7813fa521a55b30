"""An HTTP server for the files of a folder, with ranges, that remembers what it was asked for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """A running server; ``paths`` lists what was asked for, ``hold`` is called with the range before a body is sent."""

    url: str = ""
    hold: Callable[[str], object] = str
    paths: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    record: FileServer

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        self.record.paths.append(self.path)
        file = self.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, wanted = file.read_bytes(), self.headers.get("Range", "")
        first, last = 0, len(data) - 1
        if wanted.startswith("bytes="):
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
        part = data[first : last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.record.hold(wanted)
        with contextlib.suppress(OSError):  # the client may have gone meanwhile
            self.wfile.write(part)


@contextmanager
def file_server(folder: Path) -> Iterator[FileServer]:
    """Serve a folder on a free port of this machine."""
    record = FileServer()
    handler = type("Handler", (_Handler,), {"folder": folder, "record": record})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    record.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
