"""Fetching by URL from servers that are slow, large, lying, broken or simply fine."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from api.chat.request import ChatRequest, ImagePart, ImageSource, ResolvedImage, UserMessage
from api.errors import OverloadedError
from api.media.encoded import EncodedPicture
from api.media.errors import SourceError
from api.media.fetch import Connection, FetchLimits, UrlFetcher, dial, resolve_name
from api.media.fetch_policy import FetchPolicy, HostRule
from api.media.fetch_response import MAX_HEAD_BYTES, STEP_BYTES, Inflater
from api.media.fetch_target import MAX_URL_LENGTH, FetchTarget, parse_target
from api.media.resolver import MediaLimits, MediaResolver
from engine.core import Image
from tests.fakes.picture_server import Exchange, Handler, PictureServer
from tests.fakes.processes import free_port

LIMIT = 100_000
LIMITS = FetchLimits(max_bytes=LIMIT, connect_timeout_s=60.0, timeout_s=60.0, max_parallel=2, max_waiting=1)
BODY = bytes(range(256)) * 100
TLS_DATA = Path(__file__).parent.parent / "data" / "tls"


def fetch(server: PictureServer, path: str = "/", **changes: Any) -> bytes:
    """Fetch one file from a test's server, which is allowed."""
    options: dict[str, Any] = {"policy": FetchPolicy([f"127.0.0.1:{server.port}"]), "limits": LIMITS, **changes}
    return uvloop.run(UrlFetcher(**options).fetch(parse_target(server.url + path)))


def raw(*pieces: bytes) -> Handler:
    """Return a handler that sends bytes as they are and closes."""

    async def handle(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
        # The end of the data, not a reset: the client must find the fault in what it got.
        exchange.writer.write_eof()
        await exchange.closed()

    return handle


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [OK, b"Content-Length: 25600\r\n\r\n", BODY],
        [OK, b"\r\n", BODY],
        [OK, b"Transfer-Encoding: chunked\r\n\r\n", b"6400\r\n", BODY, b"\r\n0\r\n\r\n"],
        [OK, b"Transfer-Encoding: chunked\r\n\r\n", *(b"1\r\n%c\r\n" % byte for byte in BODY), b"0\r\nX: y\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\n", OK, b"\r\n", BODY],
        [b"HTTP/1.0 200 OK\r\n\r\n", BODY],
        [OK, b"Content-Encoding: identity\r\n\r\n", BODY],
        [OK, b"Content-Encoding: gzip\r\n\r\n", gzip.compress(BODY)],
        [OK, b"Content-Encoding: X-GZIP\r\n\r\n", gzip.compress(BODY)],
        [OK, b"Content-Encoding: deflate\r\n\r\n", zlib.compress(BODY)],
    ],
    ids=["length", "close", "chunked", "tiny-chunks", "interim", "http10", "identity", "gzip", "x-gzip", "deflate"],
)
def test_every_framing_gives_the_same_bytes(pieces: Sequence[bytes]) -> None:
    """Length, chunks, closing and compression are packing; the picture is what is inside."""
    with PictureServer(raw(b"".join(pieces))) as server:
        assert fetch(server) == BODY


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([OK, b"Content-Length: 25601\r\n\r\n", BODY], "before the image was complete"),
        ([OK, b"Transfer-Encoding: chunked\r\n\r\n", b"6400\r\n", BODY], "before the image was complete"),
        ([OK, b"Content-Encoding: gzip\r\n\r\n", gzip.compress(BODY)[:-9]], "before the image was complete"),
        ([OK, b"Content-Encoding: gzip\r\n\r\n", BODY], "broken answer"),
        ([OK, b"Content-Encoding: br\r\n\r\n", BODY], "only gzip"),
        ([OK, b"Content-Encoding: gzip, gzip\r\n\r\n", BODY], "only gzip"),
        ([OK, b"Content-Length: 100001\r\n\r\n"], "larger than 100000 bytes"),
        ([OK, b"Content-Length: 99999999999999999999999999\r\n\r\n"], "broken answer"),
        ([OK, b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"], "broken answer"),
        ([OK, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], "broken answer"),
        ([OK, b"Content-Length: -1\r\n\r\n"], "broken answer"),
        ([OK, b"\r\n", bytes(LIMIT + 1)], "larger than 100000 bytes"),
        ([OK, b"Transfer-Encoding: chunked\r\n\r\n", b"fffff\r\n", bytes(0xFFFFF)], "larger than 100000 bytes"),
        ([OK, b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 400_000], "larger than 100000 bytes"),
        ([OK, b"Content-Encoding: gzip\r\n\r\n", gzip.compress(bytes(50_000_000))], "larger than 100000 bytes"),
        ([OK, b"X: ", b"y" * 2 * MAX_HEAD_BYTES], "broken answer"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, OK, b"\r\n"], "broken answer"),
        ([b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"], "broken answer"),
        ([b"SSH-2.0-OpenSSH_9.9\r\n"], "broken answer"),
        ([b""], "broken answer"),
        ([b"HTTP/1.1 404 Not Found\r\n\r\n", BODY], "status 404"),
        ([b"HTTP/1.1 500 Oops\r\n\r\n", BODY], "status 500"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], "status 204"),
        ([b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nabcde"], "status 206"),
        ([b"HTTP/1.1 302 Found\r\n\r\n"], "status 302"),
        ([b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"], "more than 3 times"),
        ([b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/\r\n\r\n"], "redirects to another"),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"], "redirects to another"),
    ],
)
def test_unusable_answers_are_refused(pieces: Sequence[bytes], reason: str) -> None:
    """Too much, too little, and what is no picture's answer end with a reason; nothing is read beyond the limits."""
    with PictureServer(raw(b"".join(pieces))) as server, pytest.raises(SourceError, match=reason):
        fetch(server)


@pytest.mark.parametrize(
    "size", [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES, 3 * STEP_BYTES + 257]
)
@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_inflating_in_steps_loses_nothing(size: int, piece: int) -> None:
    """However output and input fall on the steps, everything comes out, and the end is seen."""
    bodies = [bytes(size), random.Random(size).randbytes(size)]
    # Noise byte by byte takes long and shows nothing new.
    for body in bodies if piece > 1 else bodies[:1]:
        packed = gzip.compress(body)
        inflater = Inflater("gzip")
        steps = [
            part for start in range(0, len(packed), piece) for part in inflater.inflate(packed[start : start + piece])
        ]
        inflater.end()
        assert b"".join(steps) == body
        assert max(map(len, steps), default=0) <= STEP_BYTES


async def silent(exchange: Exchange) -> None:
    """Accept the request and say nothing."""
    await exchange.closed()


async def dripping(exchange: Exchange) -> None:
    """Send one byte now and then, so that no wait for a byte is ever long."""
    await exchange.send(OK + b"Content-Length: 100000\r\n\r\n")
    while True:
        await exchange.send(b"x")
        await asyncio.sleep(0.02)


async def dripping_head(exchange: Exchange) -> None:
    """Never come to the end of the headers."""
    await exchange.send(OK)
    while True:
        for byte in b"X: y\r\n":
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0.02)


async def dripping_redirects(exchange: Exchange) -> None:
    """Be slow with every redirect, each within the deadline."""
    await asyncio.sleep(0.2)
    await exchange.answer(status="302 Found", location="/next")


@pytest.mark.parametrize("handler", [silent, dripping, dripping_head, dripping_redirects])
def test_slow_server_is_left_at_the_deadline(handler: Handler) -> None:
    """However the time is spent, the whole fetch ends at its deadline and the connection is closed."""
    limits = FetchLimits(connect_timeout_s=60, timeout_s=0.4)
    with PictureServer(handler) as server, pytest.raises(SourceError, match=r"within 0\.4 seconds"):
        fetch(server, limits=limits)


def test_connection_that_never_stands_is_given_up() -> None:
    """The connect deadline is shared by the addresses of a name, and the next one is tried."""
    tried: list[str] = []

    async def never(address: str, *_: object) -> Connection:
        tried.append(address)
        await asyncio.Event().wait()
        raise AssertionError

    async def four(*_: object) -> Sequence[str]:
        return [f"93.184.216.{number}" for number in range(9)]

    fetcher = UrlFetcher(FetchPolicy(), FetchLimits(connect_timeout_s=0.2, timeout_s=60), resolve=four, dial=never)
    with pytest.raises(SourceError, match="cannot be reached"):
        uvloop.run(fetcher.fetch(parse_target("http://example.com/")))
    assert tried == [f"93.184.216.{number}" for number in range(4)]


def test_tls_handshake_that_never_ends_is_given_up() -> None:
    """A server that takes the connection and then says nothing is left at the connect deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        fetcher = UrlFetcher(FetchPolicy([f"127.0.0.1:{port}"]), FetchLimits(connect_timeout_s=0.3, timeout_s=60))
        with pytest.raises(SourceError, match="cannot be reached"):
            uvloop.run(fetcher.fetch(parse_target(f"https://127.0.0.1:{port}/")))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            while connection.recv(4096):
                pass  # the client's first words of TLS; then it is gone


def test_next_address_is_tried() -> None:
    """When the first address of a name refuses, the second one serves."""
    with PictureServer(raw(OK, b"\r\n", BODY)) as server:

        async def two(*_: object) -> Sequence[str]:
            return ["127.0.0.2", "127.0.0.1"]

        async def connect(address: str, *rest: Any) -> Connection:
            if address == "127.0.0.2":
                raise ConnectionRefusedError
            return await dial(address, *rest)

        policy = FetchPolicy([f"images.test:{server.port}"])
        fetcher = UrlFetcher(policy, LIMITS, resolve=two, dial=connect)
        assert uvloop.run(fetcher.fetch(parse_target(f"http://images.test:{server.port}/"))) == BODY


def test_unknown_name_and_closed_port() -> None:
    """What cannot be resolved or connected to is the caller's fault, with a reason."""
    assert uvloop.run(resolve_name("no-such-host.invalid", 80)) == []
    fetcher = UrlFetcher(FetchPolicy(), LIMITS)
    with pytest.raises(SourceError, match="cannot be resolved"):
        uvloop.run(fetcher.fetch(parse_target("http://no-such-host.invalid/")))
    port = free_port()
    fetcher = UrlFetcher(FetchPolicy([f"127.0.0.1:{port}"]), LIMITS)
    with pytest.raises(SourceError, match="cannot be reached"):
        uvloop.run(fetcher.fetch(parse_target(f"http://127.0.0.1:{port}/")))


@pytest.mark.parametrize(
    ("locations", "paths"),
    [
        (["/b"], ["/a/x?y=1", "/b"]),
        (["c"], ["/a/x?y=1", "/a/c"]),
        (["../c?d=%20"], ["/a/x?y=1", "/c?d=%20"]),
        (["?z=2"], ["/a/x?y=1", "/a/x?z=2"]),
        (["SELF/q#part"], ["/a/x?y=1", "/q"]),
        (["/1", "/2", "/3"], ["/a/x?y=1", "/1", "/2", "/3"]),
    ],
)
def test_up_to_three_redirects_are_followed(locations: list[str], paths: list[str]) -> None:
    """Relative and absolute locations lead where a browser would go."""
    left = list(locations)

    async def handle(exchange: Exchange) -> None:
        if left:
            await exchange.answer(status="302 Found", location=left.pop(0).replace("SELF", server.url))
        else:
            await exchange.answer(BODY)

    with PictureServer(handle) as server:
        assert fetch(server, "/a/x?y=1") == BODY
        assert [exchange.path for exchange in server.exchanges] == paths


def test_nothing_is_sent_but_the_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, password file or cookie of the environment is used, not even for the redirect's host."""
    with PictureServer(silent) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://user:secret@127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.setenv("HOME", str(tmp_path))

        async def handle(exchange: Exchange) -> None:
            if exchange.path == "/":
                await exchange.answer(status="302 Found", location="/next", set_cookie="a=b; Path=/")
            else:
                await exchange.answer(BODY)

        with PictureServer(handle) as server:
            assert fetch(server) == BODY
        assert proxy.connections == 0
    for exchange in server.exchanges:
        assert set(exchange.headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert exchange.headers["accept-encoding"] == "identity"
        assert exchange.headers["host"] == f"127.0.0.1:{server.port}"


def test_fetches_of_one_process_are_bounded() -> None:
    """So many at a time, so many waiting; one more is told to come back, and those that wait get the next places."""
    both = asyncio.Event()
    running = most = 0

    async def handle(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            both.set()
        await both.wait()
        running -= 1
        await exchange.answer(BODY)

    async def run(server: PictureServer) -> list[Any]:
        fetcher = UrlFetcher(FetchPolicy([f"127.0.0.1:{server.port}"]), replace(LIMITS, max_waiting=3))
        target = parse_target(server.url)
        return await asyncio.gather(*(fetcher.fetch(target) for _ in range(8)), return_exceptions=True)

    with PictureServer(handle) as server:
        outcomes = uvloop.run(run(server))
    assert most == 2
    # Two run, three wait, three find the queue full.
    assert outcomes[:5] == [BODY] * 5
    assert [type(outcome) for outcome in outcomes[5:]] == [OverloadedError] * 3


def test_a_fetch_that_waits_too_long_is_told_to_come_back() -> None:
    """Those that run come to their deadline, and by then it is too late for those that waited for their places."""

    async def run(server: PictureServer) -> list[Any]:
        limits = FetchLimits(connect_timeout_s=60, timeout_s=0.5, max_parallel=2, max_waiting=3)
        fetcher = UrlFetcher(FetchPolicy([f"127.0.0.1:{server.port}"]), limits)
        target = parse_target(server.url)
        return await asyncio.gather(*(fetcher.fetch(target) for _ in range(5)), return_exceptions=True)

    with PictureServer(silent) as server:
        kinds = [type(outcome) for outcome in uvloop.run(run(server))]
    assert kinds[:2] == [SourceError] * 2
    assert set(kinds) <= {SourceError, OverloadedError}


def test_fetches_of_one_request_are_bounded() -> None:
    """One request has four places of the process at most, and still gets all of its pictures."""
    four = asyncio.Event()
    running = most = 0

    async def handle(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            await asyncio.sleep(0.1)  # time for a fifth to come, if it could
            four.set()
        await four.wait()
        running -= 1
        await exchange.answer(exchange.path.encode())

    class Echo:
        async def decode(self, picture: EncodedPicture, _budget: object) -> Image:
            assert isinstance(picture.data, bytes)
            return Image(picture.data, 48, 48)

    with PictureServer(handle) as server:
        fetcher = UrlFetcher(FetchPolicy([f"127.0.0.1:{server.port}"]), replace(LIMITS, max_parallel=16))
        parts = tuple(ImagePart(ImageSource(f"{server.url}/{number}")) for number in range(10))
        resolver = MediaResolver(MediaLimits(max_images=10, cache_bytes=0), Echo(), fetcher)
        resolved = uvloop.run(resolver.resolve(ChatRequest("m", (UserMessage(parts),)), vision=True))
    assert most == 4
    content = resolved.messages[0].content
    assert isinstance(content, tuple)
    assert [part.image.rgb for part in content if isinstance(part, ResolvedImage)] == [
        f"/{number}".encode() for number in range(10)
    ]


def test_cancelled_fetch_closes_its_connection() -> None:
    """When the client leaves, so does the fetch: the other server sees the end at once."""
    closed = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        await exchange.closed()
        closed.set()

    async def run(server: PictureServer) -> None:
        fetcher = UrlFetcher(FetchPolicy([f"127.0.0.1:{server.port}"]), LIMITS)
        task = asyncio.ensure_future(fetcher.fetch(parse_target(server.url)))
        async with asyncio.timeout(60):
            while not server.exchanges:
                await asyncio.sleep(0.01)
            task.cancel()
            while not closed.is_set():
                await asyncio.sleep(0.01)

    with PictureServer(handle) as server:
        uvloop.run(run(server))
    assert closed.is_set()


def test_event_loop_is_never_held_up() -> None:
    """Neither tiny chunks nor a bomb keep the loop from others for long."""
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 60_000 + b"0\r\n\r\n"
    bomb = b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(19_000_000))
    for answer in (chunks, bomb):
        with PictureServer(raw(OK + answer)) as server:
            assert uvloop.run(_longest_step(server)) < 0.2


async def _longest_step(server: PictureServer) -> float:
    """Return how much CPU time the loop's thread spent at worst between two of its rounds while it fetched a picture.

    Not the time by the clock: on a busy machine it says what others do.
    """
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            start = time.thread_time()
            await asyncio.sleep(0)
            worst = max(worst, time.thread_time() - start)

    ticker = asyncio.ensure_future(tick())
    await UrlFetcher(
        FetchPolicy([f"127.0.0.1:{server.port}"]), replace(LIMITS, max_bytes=FetchLimits().max_bytes)
    ).fetch(parse_target(server.url))
    ticker.cancel()
    return worst


def _tls_server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS_DATA / "server.pem")
    return context


async def _loopback(*_: object) -> Sequence[str]:
    return ["127.0.0.1"]


def test_tls_keeps_the_name_although_the_address_is_pinned() -> None:
    """The server is asked for by its name and must prove to be it, at the address that was judged."""
    asked: list[str | None] = []
    context = _tls_server()
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    client = ssl.create_default_context(cafile=str(TLS_DATA / "authority.pem"))
    with PictureServer(raw(OK, b"\r\n", BODY), tls=context) as server:
        fetcher = UrlFetcher(FetchPolicy([f"*.test:{server.port}"]), LIMITS, resolve=_loopback, tls=client)
        fetch_from: Callable[[str], bytes] = lambda host: uvloop.run(  # noqa: E731 - three short uses
            fetcher.fetch(parse_target(f"https://{host}:{server.port}/"))
        )
        assert fetch_from("images.test") == BODY
        assert asked == ["images.test"]
        assert server.exchanges[0].headers["host"] == f"images.test:{server.port}"
        with pytest.raises(SourceError, match="identity"):
            fetch_from("other.test")
        strict = UrlFetcher(FetchPolicy([f"*.test:{server.port}"]), LIMITS, resolve=_loopback)
        with pytest.raises(SourceError, match="identity"):
            uvloop.run(strict.fetch(parse_target(f"https://images.test:{server.port}/")))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("http://Example.COM", ("http", "example.com", 80, "/")),
        ("https://example.com./a b?q=\u00fc#part", ("https", "example.com", 443, "/a%20b?q=%C3%BC")),
        ("http://b\u00fccher.example:8080/x/../y", ("http", "xn--bcher-kva.example", 8080, "/y")),
        ("http://[2606:2800:220:1::1]:81/?", ("http", "2606:2800:220:1::1", 81, "/?")),
        ("http://example.com:/", ("http", "example.com", 80, "/")),
    ],
)
def test_url_is_taken_apart_once(text: str, wanted: tuple[str, str, int, str]) -> None:
    """Host, port and path come out in the one form that is connected to, sent and judged."""
    target = parse_target(text)
    assert (target.scheme, target.host, target.port, target.path) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http:///x",
        "http://?x",
        "http://#",
        "http://exa mple/",
        "http://[::1",
        "http://x:99999/",
        "http://x:0/",
        "http://a%00b/",
        "http://xn--/",
        "http://256.256.256.256/",
        "https://" + "x" * MAX_URL_LENGTH,
        "ftp://x/",
    ],
)
def test_what_is_no_plain_url_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(SourceError):
        parse_target(text)


@pytest.mark.parametrize(
    ("entry", "url", "is_allowed"),
    [
        ("example.com", "http://example.com/", True),
        ("Example.com", "https://EXAMPLE.com./", True),
        ("example.com", "http://www.example.com/", False),
        ("example.com", "http://notexample.com/", False),
        ("example.com", "http://example.com:8080/", False),
        ("example.com:8080", "http://example.com:8080/", True),
        ("example.com:8080", "http://example.com/", False),
        ("*.example.com", "http://a.b.example.com/", True),
        ("*.example.com", "http://example.com/", False),
        ("*.example.com", "http://evilexample.com/", False),
        ("*", "http://anything.example/", True),
        ("*", "http://127.0.0.1/", False),
        ("127.0.0.1", "http://127.0.0.1/", True),
        ("127.0.0.1", "http://0x7f.1/", True),
        ("127.0.0.1", "http://127.0.0.2/", False),
        ("[::1]:8080", "http://[0::1]:8080/", True),
        ("::1", "http://[::1]/", True),
        ("b\u00fccher.example", "http://xn--bcher-kva.example/", True),
    ],
)
def test_list_of_hosts(entry: str, url: str, is_allowed: bool) -> None:
    """Only hosts of the list are fetched from, by exact name, port, domain or address."""
    policy = FetchPolicy([entry])
    target: FetchTarget = parse_target(url)
    if is_allowed:
        policy.check(target)
    else:
        with pytest.raises(SourceError):
            policy.check(target)


@pytest.mark.parametrize(
    "entry", ["", "*.*", "a*b.example", "http://example.com/", "example.com/path", "exa mple", "x:0"]
)
def test_entry_that_names_no_host_is_refused(entry: str) -> None:
    """A list that would never match what the operator meant keeps the server from starting."""
    with pytest.raises(ValueError, match="is not a host"):
        HostRule.parse(entry)
