"""One HTTP request, done carefully: proxy, certificates, deadlines, redirects that carry no key to strangers.

A failure that another attempt may cure is a ``TransientError``; how often to try is ``retry``'s decision. What a
refusal means is ``refusals``'. Nothing is shown with a query, since that is where storage networks put signatures.
"""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Final, Self
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError, ProxyError, SSLError
from urllib3.util import Timeout, make_headers

from launcher.download.access import Access
from launcher.download.certificates import tls_context
from launcher.download.credentials import Credential
from launcher.download.messages import host_of, reason_of, shown
from launcher.errors import ExitCode, LaunchError, NetworkError, NotFoundError

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_BLOCK: Final = 512 * 1024
_LEAST_RATE: Final = 1024
_LARGEST_JSON: Final = 64 * 1024 * 1024
_ERROR_TEXT: Final = 4096
_AGENT: Final = "gemma4-nim"


class TransientError(Exception):
    """Another attempt may succeed: the connection broke or stalled, or the server asked to come back later.

    Attributes:
        pause_s: how long the server asked to wait.
    """

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pause_s = pause_s


class Reply:
    """A response whose body has not been read. Close it, or read it to the end."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str, stall_s: float) -> None:
        self._response = response
        self._stall_s = stall_s
        self.url = url
        self.received = 0
        self._is_read = False
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            TransientError: the connection broke, stalled, or ended before the announced length.
        """
        watch = _StallWatch(self._stall_s)
        try:
            while block := self._response.read1(_BLOCK, decode_content=False):
                self.received += len(block)
                watch.got(len(block))
                yield block
        except (HTTPError, OSError, http.client.HTTPException) as error:
            raise TransientError(f"the connection broke off: {reason_of(error)}") from error
        if self._response.length_remaining:
            raise TransientError(f"the body ended {self._response.length_remaining} bytes early")
        self._is_read = True

    def json(self) -> Any:
        """Read the body as JSON.

        Raises:
            TransientError: it is none, as when a proxy answers with a page of its own.
        """
        data = bytearray()
        for block in self.blocks():
            data += block
            if len(data) > _LARGEST_JSON:
                raise TransientError("the answer is too long for a list of files")
        try:
            return json.loads(data)
        except ValueError as error:
            raise TransientError(f"{host_of(self.url)} answered with something that is not JSON") from error

    def text(self) -> str:
        """Read the beginning of an error's body, for its reason; empty if there is none."""
        try:
            return next(self.blocks(), b"")[:_ERROR_TEXT].decode(errors="replace")
        except TransientError:
            return ""

    def abort(self) -> None:
        """Make a read that waits in another thread end."""
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            self.close()

    def close(self) -> None:
        """Give the connection back when the body was read, else close it."""
        if self._is_read:
            self._response.release_conn()
        else:
            self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _StallWatch:
    """Gives up a connection that trickles: the socket's own timeout begins anew with every byte."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._since = time.monotonic()
        self._count = 0

    def got(self, count: int) -> None:
        self._count += count
        passed = time.monotonic() - self._since
        if passed < self._stall_s:
            return
        if self._count < passed * _LEAST_RATE:
            raise TransientError(f"the connection stalled: {self._count} bytes in {passed:.0f} s")
        self._since, self._count = time.monotonic(), 0


class Client:
    """Connections to the outside, kept open between requests and shared by threads."""

    def __init__(self, access: Access) -> None:
        """Prepare; nothing is connected yet.

        Raises:
            NotFoundError: offline is set; there is no way to make a client that connects then.
            LaunchError: the certificates cannot be read.
        """
        if access.offline:
            raise NotFoundError("no connection is opened offline", "unset NIM_OFFLINE and NIM_DISABLE_MODEL_DOWNLOAD")
        # At DEBUG urllib3 writes whole addresses, with the signatures that storage networks put into them.
        logging.getLogger("urllib3").setLevel(logging.INFO)
        self._access = access
        self._context = tls_context(access.trust)
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        patience = access.patience
        self._timeout = Timeout(connect=patience.connect_s, read=patience.stall_s)

    def open(self, url: str, credential: Credential, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a GET request, follow redirects, and return the answer, whatever its status but the transient ones.

        Raises:
            TransientError: no connection, or a status that means "later".
            NetworkError: a certificate is not trusted, or redirects lead nowhere.
        """
        return self.send("GET", url, credential, headers, None)

    def send(
        self,
        method: str,
        url: str,
        credential: Credential,
        headers: Mapping[str, str] | None,
        body: bytes | BinaryIO | None,
    ) -> Reply:
        """Send one request that may have a body; else as ``open``. Headers that are given win over the credential's."""
        for _ in range(_MOST_REDIRECTS + 1):
            proof = credential.headers(method, url)
            reply = self._send(method, url, {**proof, **(headers or {})}, body)
            target = reply.headers.get("Location")
            if reply.status in _TRANSIENT:
                reply.close()
                raise TransientError(f"{host_of(url)} answered {reply.status}", _asked_pause(reply.headers))
            # A body is not sent on: the headers that sign it are for this address.
            if reply.status not in _REDIRECTS or target is None or body is not None:
                return reply
            reply.close()
            url = _follow(url, target)
        raise NetworkError(f"{host_of(url)} redirects in circles", "check the address and the proxy")

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | BinaryIO | None) -> Reply:
        proxy = self._access.proxies.proxy_for(url)
        fixed = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
        try:
            response = self._pool(proxy).request(
                method, url, headers={**fixed, **headers}, body=body, redirect=False, retries=False,
                preload_content=False,
                decode_content=False, timeout=self._timeout,
            )  # fmt: skip
        except LocationParseError as error:
            raise LaunchError(ExitCode.BAD_SETTINGS, f"{shown(url)} is no usable address") from error
        except (HTTPError, OSError, http.client.HTTPException) as error:
            raise self._translated(error, url, proxy) from error
        return Reply(response, url, self._access.patience.stall_s)

    def _translated(self, error: Exception, url: str, proxy: str | None) -> Exception:
        cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        where = f"{host_of(url)} through the proxy {host_of(proxy)}" if proxy else host_of(url)
        if isinstance(cause, ProxyError) and "407" in str(cause.original_error):
            return NetworkError(f"the proxy {host_of(proxy or '')} wants a password", "put it into HTTPS_PROXY")
        inner = cause.original_error if isinstance(cause, ProxyError) else cause
        if isinstance(inner, SSLError | ssl.SSLError) and "CERTIFICATE_VERIFY" in str(inner).upper():
            return NetworkError(
                f"the certificate of {where} is not trusted: {reason_of(inner)}",
                "set SSL_CERT_FILE to the file with your authority's certificate",
            )
        return TransientError(f"{where} cannot be reached: {reason_of(inner)}")

    def _pool(self, proxy: str | None) -> urllib3.PoolManager:
        if proxy not in self._pools:
            options: dict[str, Any] = {
                "num_pools": 16, "maxsize": self._access.tuning.connections + 2, "ssl_context": self._context,
            }  # fmt: skip
            self._pools[proxy] = _proxy_pool(proxy, options) if proxy else urllib3.PoolManager(**options)
        return self._pools[proxy]


def _proxy_pool(proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    parts = urlsplit(proxy)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    headers = make_headers(proxy_basic_auth=pair) if pair else None
    return urllib3.ProxyManager(parts._replace(netloc=host_of(proxy)).geturl(), proxy_headers=headers, **options)


def _follow(url: str, target: str) -> str:
    """Return where a redirect leads; never from an encrypted connection to a plain one."""
    after = urljoin(url, target)
    scheme = urlsplit(after).scheme
    if scheme not in ("http", "https") or (scheme == "http" and urlsplit(url).scheme == "https"):
        raise NetworkError(
            f"{host_of(url)} redirects to an address that is not https", "check the address and the proxy"
        )
    return after


def _asked_pause(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
