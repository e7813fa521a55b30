"""Raw connections to a server, for requests that no client library sends."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.api.conftest import ScriptedServer

DEADLINE_S = 60
Answer = tuple[int, Mapping[str, str], Any]
"""Status, headers by their names in small letters, and the JSON value of the body."""


class RawClient:
    """A connection on which anything can be sent, and answers read one after another."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._reader = connection.makefile("rb")

    def fileno(self) -> int:
        """Return what ``select`` needs; it knows nothing of what was read ahead."""
        return self.socket.fileno()

    def send(self, data: bytes) -> None:
        """Send all."""
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        """Return the next answer."""
        status = int(self._line().split(" ")[1])
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = b"" if method == "HEAD" else self._reader.read(int(headers.get("content-length", "0")))
        is_json = headers.get("content-type") == "application/json" and body
        return status, headers, json.loads(body) if is_json else None

    def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        try:
            return self._reader.read()
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close."""
        self._reader.close()
        self.socket.close()

    def _line(self) -> str:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended before the answer")
        return line.decode("latin-1").rstrip("\r\n")


@contextmanager
def connect(server: ScriptedServer, tls: ssl.SSLContext | None = None) -> Iterator[RawClient]:
    """Open a connection."""
    host, port = server.base_url.rpartition("//")[2].split(":")
    plain = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
    try:
        client = RawClient(plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost"))
    except BaseException:
        plain.close()
        raise
    try:
        yield client
    finally:
        client.close()


def send(server: ScriptedServer, data: bytes, tls: ssl.SSLContext | None = None) -> Answer:
    """Send bytes on a connection of their own and return the answer."""
    with connect(server, tls) as client:
        client.send(data)
        return client.answer(data.split(b" ")[0].decode("latin-1"))


def head(method: str, target: str, *headers: str) -> bytes:
    """Return the head of a request."""
    return "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", "host: x", *headers, "")).encode()


def post(body: bytes, *headers: str) -> bytes:
    """Return a chat request."""
    return head("POST", "/v1/chat/completions", f"content-length: {len(body)}", *headers) + body


def check_error(answer: Answer, status: int, code: str) -> None:
    """See that an answer is an error in OpenAI's form."""
    found, headers, body = answer
    assert (found, headers["content-type"]) == (status, "application/json"), answer
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert headers["x-request-id"]
