"""Real HTTP servers for the tests of downloads: plain files with the faults that networks have, a hub, a proxy."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def start(self) -> int:
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0


@dataclass
class Answer:
    """What to send; ``body`` may be cut short of what the headers announce, or paused within."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_at: int | None = None
    pause: tuple[int, threading.Event] | None = None
    has_length: bool = True


Fault = Callable[[Request, Answer], Answer | None]


class FileServer:
    """Serves ``files`` by path with ranges and ETags; each of ``faults`` may replace or change an answer."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.routes: list[tuple[re.Pattern[str], Callable[[Request], Answer | None]]] = []
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.has_ranges = True
        self.sent = 0
        self._lock = threading.Lock()
        self._answering = 0
        self._idle = threading.Condition(self._lock)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.name}"

    @property
    def name(self) -> str:
        return f"{'localhost' if self.scheme == 'https' else '127.0.0.1'}:{self._server.server_address[1]}"

    def use_tls(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "https"

    def requests_for(self, part: str) -> list[Request]:
        return [request for request in self.requests if part in request.path]

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
        answer = next(
            (found for pattern, route in self.routes if pattern.search(request.path) and (found := route(request))),
            None,
        ) or self._file(request)
        for fault in list(self.faults):
            answer = fault(request, answer) or answer
        return answer

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Hold the server busy while one answer is written."""
        with self._lock:
            self._answering += 1
        try:
            yield
        finally:
            with self._idle:
                self._answering -= 1
                self._idle.notify_all()

    def settled(self) -> int:
        """Return the bytes sent once no answer is under way: clients that broke off are written to a while longer."""
        with self._idle:
            if not self._idle.wait_for(lambda: not self._answering, timeout=60):
                message = f"{self._answering} answers are still under way"
                raise TimeoutError(message)
            return self.sent

    def _file(self, request: Request) -> Answer:
        body = self.files.get(unquote(request.path))
        if body is None:
            return Answer(404, body=b"not here")
        return ranged(request, body, self.has_ranges)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def ranged(request: Request, body: bytes, has_ranges: bool = True) -> Answer:
    headers = {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if asked is None or not has_ranges:
        return Answer(200, headers, body)
    start, end = int(asked[1]), min(int(asked[2] or len(body) - 1), len(body) - 1)
    if start >= len(body):
        return Answer(416, {"Content-Range": f"bytes */{len(body)}"})
    return Answer(206, {**headers, "Content-Range": f"bytes {start}-{end}/{len(body)}"}, body[start : end + 1])


class Hub(FileServer):
    """The Hugging Face hub: API, ``resolve`` with redirects of large files to ``storage``, gates, wanted keys."""

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]], storage: FileServer, key: str = "") -> None:
        super().__init__()
        self.repositories = {name: dict(files) for name, files in repositories.items()}
        self.storage = storage
        self.key = key
        self.gated: set[str] = set()
        self.large = 1000
        self.page = 3
        self.routes = [
            (re.compile(r"^/api/models/[^/]+/[^/]+/revision/"), self._revision),
            (re.compile(r"^/api/models/[^/]+/[^/]+/tree/"), self._tree),
            (re.compile(r"^/[^/]+/[^/]+/resolve/"), self._resolve),
        ]

    def _refused(self, repository: str, request: Request) -> Answer | None:
        given = request.headers.get("Authorization")
        if given is not None and given != f"Bearer {self.key}":
            return Answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if repository not in self.repositories:
            return Answer(404 if given else 401, {"X-Error-Code": "RepoNotFound"})
        return None

    def _revision(self, request: Request) -> Answer:
        _, _, _, org, name, _, revision = request.path.split("/", 6)
        refused = self._refused(f"{org}/{name}", request)
        if refused is not None:
            return refused
        if unquote(revision) not in ("main", COMMIT):
            return Answer(404, {"X-Error-Code": "RevisionNotFound"})
        return Answer(body=json.dumps({"id": f"{org}/{name}", "sha": COMMIT, "siblings": []}).encode())

    def _tree(self, request: Request) -> Answer:
        _, _, _, org, name, _, _ = request.path.split("/", 6)
        refused = self._refused(f"{org}/{name}", request)
        if refused is not None:
            return refused
        names = sorted(self.repositories[f"{org}/{name}"])
        start = int(re.search(r"cursor=(\d+)", request.query)[1]) if "cursor=" in request.query else 0
        entries = [
            self._entry(file, self.repositories[f"{org}/{name}"][file]) for file in names[start : start + self.page]
        ]
        if start == 0:
            entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"})
        headers = {}
        if start + self.page < len(names):
            headers["Link"] = f'<{self.url}{request.path}?recursive=true&cursor={start + self.page}>; rel="next"'
        return Answer(200, headers, json.dumps(entries).encode())

    def _entry(self, name: str, body: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "oid": git_sha1(body), "size": len(body), "path": name}
        if len(body) >= self.large:
            oid = hashlib.sha256(body).hexdigest()
            entry |= {"lfs": {"oid": oid, "size": len(body), "pointerSize": 134}, "oid": "1" * 40, "xetHash": "2" * 64}
        return entry

    def _resolve(self, request: Request) -> Answer:
        _, org, name, _, _, file = request.path.split("/", 5)
        repository = f"{org}/{name}"
        refused = self._refused(repository, request)
        if refused is not None:
            return refused
        if repository in self.gated:
            return Answer(403 if "Authorization" in request.headers else 401, {"X-Error-Code": "GatedRepo"})
        body = self.repositories[repository].get(unquote(file))
        if body is None:
            return Answer(404, {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": COMMIT}
        if len(body) < self.large:
            answer = ranged(request, body)
            answer.headers |= {**headers, "ETag": f'"{git_sha1(body)}"'}
            return answer
        oid = hashlib.sha256(body).hexdigest()
        self.storage.files[f"/store/{oid}"] = body
        link = f"{self.storage.url}/store/{oid}?X-Amz-Signature=secret"
        return Answer(302, {**headers, "Location": link, "X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(body))})


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


class Proxy:
    """A forward proxy: CONNECT for https, absolute addresses for http; notes whom it was asked for."""

    def __init__(self, password: str | None = None) -> None:
        self.targets: list[str] = []
        self.authorizations: list[str | None] = []
        self.password = password
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                proxy.targets.append(self.path)
                proxy.authorizations.append(self.headers.get("Proxy-Authorization"))
                if proxy.password and proxy.password not in (self.headers.get("Proxy-Authorization") or ""):
                    self.send_error(407)
                    return
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port)), 10) as far:
                    self.send_response(200)
                    self.end_headers()
                    other = threading.Thread(target=_pump, args=(self.connection, far), daemon=True)
                    other.start()
                    _pump(far, self.connection)
                    other.join(100)
                self.close_connection = True

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                proxy.targets.append(parts.netloc)
                with socket.create_connection((parts.hostname, parts.port or 80), 10) as far:
                    lines = [f"GET {parts.path or '/'}?{parts.query} HTTP/1.1", "Connection: close"]
                    lines += [f"{name}: {value}" for name, value in self.headers.items() if name != "Connection"]
                    far.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
                    _pump(far, self.connection)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Clients that break off are the subject of these tests, not a fault of the server."""


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one class with three methods
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            with server.answering():
                self._answer()

        def _answer(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("Content-Length") or 0)
            answer = server.answer(Request(self.command, path, query, dict(self.headers), self.rfile.read(length)))
            self.send_response(answer.status)
            lowered = {name.lower() for name in answer.headers}
            if answer.has_length and "content-length" not in lowered:
                self.send_header("Content-Length", str(len(answer.body)))
            elif not answer.has_length:
                self.send_header("Connection", "close")
                self.close_connection = True
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self._send(answer)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def _send(self, answer: Answer) -> None:
            body = answer.body if answer.cut_at is None else answer.body[: answer.cut_at]
            first = answer.pause[0] if answer.pause else len(body)
            for part in (body[:first], body[first:]):
                for start in range(0, len(part), 65536):
                    self.wfile.write(part[start : start + 65536])
                    server.count(len(part[start : start + 65536]))
                if answer.pause and part is not body:
                    answer.pause[1].wait(100)
            if answer.cut_at is not None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def hub_and_storage(repositories: Mapping[str, Mapping[str, bytes]], key: str = "") -> Iterator[Hub]:
    with FileServer() as storage, Hub(repositories, storage, key) as hub:
        yield hub
