"""Fetches a picture by URL: one judged address per connection, few redirects, and a limit on everything.

What a URL means is ``api.media.fetch_target``'s, where it may lead ``api.media.fetch_policy``'s. A connection goes to
the very address that was judged, while TLS and ``Host`` keep the name; nothing of the environment, of the client's
request or of an earlier fetch is sent along. Written on bare streams, because what a general client would add -
proxies, cookies, pools, its own redirects and its own look-up of names - is what must not happen here.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from api.media.errors import SourceError
from api.media.fetch_places import FetchPlaces, PlaceLimits
from api.media.fetch_policy import FetchPolicy, Trust
from api.media.fetch_response import MAX_HEAD_BYTES, Inflater, ResponseParser
from api.media.fetch_target import FetchTarget

MAX_REDIRECTS: Final = 3
MAX_ADDRESSES: Final = 4
"""Addresses of one name that are tried until one answers."""

_READ_BYTES: Final = 16 * 1024
"""Parsed at a time; small, so that the event loop is never held up by one connection."""
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = (
    "User-Agent: gemma4-nim\r\n"
    "Accept: image/jpeg, image/png, image/webp, image/gif, image/bmp, */*;q=0.1\r\n"
    "Accept-Encoding: identity\r\n"
    "Connection: close\r\n\r\n"
)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port -> addresses; none when there is no such name."""
Dial = Callable[[str, int, ssl.SSLContext | None, str], Awaitable[Connection]]
"""Address, port, TLS or None, and the name for TLS -> an open connection. Raises OSError."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much one fetch, and all of them together, may take."""

    max_bytes: int = 20 * 1024 * 1024
    connect_timeout_s: float = 3.0
    """For one address or, shared, for several: TCP and TLS together."""
    timeout_s: float = 10.0
    """For a whole fetch: names, redirects and body together."""
    max_parallel: int = 16
    max_waiting: int = 64


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """Ask the system for the addresses of a name."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def dial(address: str, port: int, tls: ssl.SSLContext | None, name: str) -> Connection:
    """Connect to an address. With TLS the server must prove to be ``name``.

    Raises:
        OSError: when nothing answers, or TLS fails.
    """
    return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name if tls else None)


class UrlFetcher:
    """Fetches pictures for all requests of this process."""

    def __init__(
        self,
        policy: FetchPolicy,
        limits: FetchLimits,
        *,
        resolve: Resolve = resolve_name,
        dial: Dial = dial,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._resolve = resolve
        self._dial = dial
        # The system's store of authorities; SSL_CERT_FILE and SSL_CERT_DIR name another, as everywhere.
        self._tls = tls or ssl.create_default_context()
        self._places = FetchPlaces(PlaceLimits(limits.max_parallel, limits.max_waiting, limits.timeout_s))

    def check(self, target: FetchTarget) -> None:
        """Judge a URL without touching the network.

        Raises:
            SourceError: when it would be refused whatever its name resolves to.
        """
        self._policy.check(target)

    async def fetch(self, target: FetchTarget) -> bytes:
        """Return the body.

        Raises:
            SourceError: when it is refused, fails, is too large, or takes too long.
            api.errors.OverloadedError: when too many fetches wait already.
        """
        # A host that the operator has named may use all places: it may well be the only one.
        is_shared = self._policy.check(target) is Trust.PUBLIC
        async with self._places.take(target, is_shared=is_shared):
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    return await self._follow(target)
            except TimeoutError as error:
                raise SourceError(
                    f"the server at its URL did not deliver the image within {self._limits.timeout_s:g} seconds"
                ) from error

    async def _follow(self, target: FetchTarget) -> bytes:
        """Fetch, through redirects, each of which is judged as if the caller had sent it."""
        location: str | None = None
        for _ in range(MAX_REDIRECTS + 1):
            try:
                target = target if location is None else target.redirect(location)
                reader, writer = await self._connect(target)
            except SourceError as error:
                if location is None:
                    raise
                raise SourceError(f"its URL redirects to another one, and {error.message}") from error
            try:
                writer.write(f"GET {target.path} HTTP/1.1\r\nHost: {target.host_header}\r\n{_HEADERS}".encode("ascii"))
                outcome = await self._receive(reader)
            except OSError as error:
                raise SourceError("the connection to the server at its URL broke") from error
            finally:
                # Nothing is left to say, and a polite end of TLS would wait for the other side.
                writer.transport.abort()
            if isinstance(outcome, bytes):
                return outcome
            location = outcome
        raise SourceError(f"the server at its URL redirects more than {MAX_REDIRECTS} times")

    async def _connect(self, target: FetchTarget) -> Connection:
        """Judge, resolve once, and connect to what was judged."""
        trust: Trust = self._policy.check(target)
        found = [str(target.address)] if target.address else await self._resolve(target.host, target.port)
        addresses = self._policy.pin(target, trust, found)[:MAX_ADDRESSES]
        tls = self._tls if target.is_tls else None
        for address in addresses:
            try:
                async with asyncio.timeout(self._limits.connect_timeout_s / len(addresses)):
                    return await self._dial(address, target.port, tls, target.host)
            except (OSError, TimeoutError) as error:
                fault = error
        reason = "does not prove its identity (TLS)" if isinstance(fault, ssl.SSLError) else "cannot be reached"
        raise SourceError(f"the server at its URL {reason}") from fault

    async def _receive(self, reader: asyncio.StreamReader) -> bytes | str:
        """Return the body, or where the server redirects to."""
        parser = ResponseParser()
        body = io.BytesIO()
        inflater: Inflater | None = None
        received = 0
        while not parser.is_complete:
            data = await reader.read(_READ_BYTES)
            received += len(data)
            if received > 2 * self._limits.max_bytes + MAX_HEAD_BYTES:
                # Far more packing than picture: chunks of one byte, or trailers without end.
                raise self._too_large()
            piece = parser.feed(data) if data else b""
            if not data:
                parser.end()
            if inflater is None and parser.is_head_complete:
                if parser.status in _REDIRECTS and "location" in parser.headers:
                    return parser.headers["location"]
                inflater = self._check_head(parser)
            if inflater is not None and piece:
                await self._append(body, inflater, piece)
        if inflater is not None:
            inflater.end()
        return body.getvalue()

    def _check_head(self, parser: ResponseParser) -> Inflater:
        if parser.status != _OK:
            raise SourceError(f"the server at its URL answered with status {parser.status}")
        if (parser.content_length() or 0) > self._limits.max_bytes:
            raise self._too_large()
        return Inflater(parser.headers.get("content-encoding"))

    async def _append(self, body: io.BytesIO, inflater: Inflater, piece: bytes) -> None:
        """Add a piece to the body, in steps that leave the loop to others."""
        for part in inflater.inflate(piece):
            if body.tell() + len(part) > self._limits.max_bytes:
                raise self._too_large()
            body.write(part)
            # A read that finds data waiting does not give way by itself.
            await asyncio.sleep(0)

    def _too_large(self) -> SourceError:
        return SourceError(f"it is larger than {self._limits.max_bytes} bytes")
