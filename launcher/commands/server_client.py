"""Talks to a running server as any client would: its address, its health, its models, and streamed answers.

Only the standard library's HTTP client is used, so that a command starts fast. What is said is the caller's business.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from launcher.commands.event_stream import EventStreamDecoder
from launcher.errors import ExitCode, LaunchError

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 600.0
"""Longest silence while an answer is read: the first token of a long prompt on a CPU takes minutes."""
READ_BYTES: Final = 65_536
POLL_S: Final = 0.3
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
NEEDS_KEY: Final = "set NIM_API_KEY, or name the file of a key with --key-file"
WORTH_A_RETRY: Final = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)


class ServerError(LaunchError):
    """A server that cannot be reached, or that answered with an error; refused requests are the asker's fault."""

    def __init__(self, message: str, remedy: str = "", *, is_refusal: bool = False) -> None:
        super().__init__(ExitCode.BAD_SETTINGS if is_refusal else ExitCode.DOWNLOAD_FAILED, message, remedy)


@dataclass(frozen=True, slots=True)
class Server:
    """One server of the OpenAI-style API.

    Attributes:
        prefix: path before ``/v1``, without a slash at its end.
        key: sent as a bearer token.
        tls: for https; None trusts what this machine trusts.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""
    key: str | None = None
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, url: str, key: str | None = None) -> Server:
        """Read an address: ``host:port``, ``http://host:port``, with or without ``/v1`` at its end.

        Raises:
            LaunchError: it is no such address.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
        except ValueError:
            host, port = None, 0
        if not host or not port or parts.scheme not in DEFAULT_PORTS or parts.query or parts.fragment:
            message = f"--url {url!r} is not the address of a server"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "write it like http://127.0.0.1:8000")
        return cls(parts.scheme, host, port, parts.path.rstrip("/").removesuffix("/v1"), key)

    @property
    def url(self) -> str:
        """Return the address for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    def headers(self) -> dict[str, str]:
        """Return what every request carries."""
        known = {"Content-Type": "application/json", "User-Agent": "gemma4-nim"}
        return known | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def ask(self, path: str) -> tuple[int, Any]:
        """Return status and JSON value of a GET; a body that is no JSON counts as None.

        Raises:
            ServerError: nobody answers.
        """
        with self._exchange("GET", path, None, CONNECT_TIMEOUT_S) as response:
            return response.status, json_value(response.read())

    def models(self) -> list[dict[str, Any]]:
        """Return what ``/v1/models`` lists, at least one.

        Raises:
            ServerError: the server cannot be reached or is none of this kind.
        """
        status, record = self.ask("/v1/models")
        if status != http.client.OK:
            raise refusal(status, record)
        found = record.get("data") if isinstance(record, dict) else None
        models = [model for model in found or () if isinstance(model, dict) and "id" in model]
        if not models:
            raise ServerError(f"{self.url} lists no models", "is it the address of an OpenAI-style server?")
        return models

    def wait_ready(self, timeout_s: float, on_wait: Callable[[dict[str, Any]], None]) -> None:
        """Return when requests are served; ``on_wait`` gets the body of each answer that says "not yet".

        A server without a readiness route counts as ready.

        Raises:
            ServerError: nobody answers, or it is not ready in time.
        """
        end = time.monotonic() + timeout_s
        while True:
            status, record = self.ask("/v1/health/ready")
            if status != http.client.SERVICE_UNAVAILABLE:
                return
            if time.monotonic() > end:
                message = f"the server at {self.url} is not ready after {timeout_s:.0f} s"
                raise ServerError(message, "look at its log, or give it more time with --wait")
            on_wait(record if isinstance(record, dict) else {})
            time.sleep(POLL_S)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send a request and yield its events; closing the iteration closes the connection, which ends the answer.

        Raises:
            ServerError: the server refuses, fails, or the connection breaks before the end.
        """
        decoder = EventStreamDecoder()
        with self._exchange("POST", path, body, ANSWER_TIMEOUT_S) as response:
            if response.status != http.client.OK:
                raise refusal(response.status, json_value(response.read()))
            while data := response.read1(READ_BYTES):
                for event in decoder.feed(data):
                    if "error" in event:
                        raise refusal(None, event)
                    yield event
        if not decoder.is_done:
            raise ServerError("the server closed the connection in the middle of the answer")

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        try:
            connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, self.prefix + path, data, self.headers())
            yield connection.getresponse()
        except TimeoutError as error:
            raise ServerError(f"{self.url} did not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=CONNECT_TIMEOUT_S)
        context = self.tls or ssl.create_default_context()
        return http.client.HTTPSConnection(self.host, self.port, timeout=CONNECT_TIMEOUT_S, context=context)

    def _unreachable(self, error: Exception) -> ServerError:
        if isinstance(error, ssl.SSLCertVerificationError):
            message = f"the certificate of {self.url} is not trusted: {error.verify_message}"
            return ServerError(message, "set SSL_CERT_FILE to the file of its certificate authority")
        if isinstance(error, ConnectionRefusedError):
            remedy = "start one with nim-serve, or give its address with --url"
            return ServerError(f"no server answers at {self.url}", remedy)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ServerError(f"no answer from {self.url}: {reason}", "is --url the address of a gemma4-nim server?")


def refusal(status: int | None, record: Any) -> ServerError:
    """Return the error that an answer of the server tells, in the server's own words."""
    error = record.get("error", record) if isinstance(record, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    text = f"the server says: {message}" if message else f"the server answered with status {status or 'unknown'}"
    remedy = NEEDS_KEY if status == http.client.UNAUTHORIZED else ""
    is_refusal = status is not None and http.client.BAD_REQUEST <= status < http.client.INTERNAL_SERVER_ERROR
    return ServerError(text, remedy, is_refusal=is_refusal and status not in WORTH_A_RETRY)


def json_value(data: bytes) -> Any:
    """Return the JSON value of a body, None where it is none."""
    try:
        return json.loads(data)
    except ValueError:
        return None
