"""No URL, however it is spelled, resolved or redirected, reaches this machine or its network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests
import uvloop

from api.chat.request import ChatRequest, ImagePart, ImageSource, TextPart, UserMessage
from api.errors import MediaError
from api.media.fetch import Connection, FetchLimits, UrlFetcher
from api.media.fetch_policy import FetchPolicy
from api.media.resolver import MediaLimits, MediaResolver
from tests.api.conftest import ScriptedServer
from tests.fakes.hostile_urls import FORMS, LOCATIONS
from tests.fakes.picture_server import Exchange, ForbiddenListener, PictureServer, serving
from tests.fakes.pictures import by_url, plain
from tests.fakes.processes import wait_until
from tests.media.conftest import StartApi


def ask(url: str) -> dict[str, Any]:
    """Return a request whose second part is the picture."""
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, by_url(url)]}]}


def check_refused(response: requests.Response) -> None:
    """Check for a 400 that names the message and part, in OpenAI's shape."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "invalid_image",
        "messages.0.content.1",
    )
    assert "messages.0.content.1" in error["message"]
    assert "127.0.0.1" not in error["message"]


@pytest.fixture(scope="module")
def guarded(start_api: StartApi, forbidden: ForbiddenListener) -> Iterator[ScriptedServer]:
    """Start an API process that would be allowed to use the listener's port."""
    with start_api(NIM_ALLOWED_MEDIA_PORTS=f"80,443,{forbidden.port}") as server:
        yield server


def test_listener_counts_who_connects(forbidden: ForbiddenListener) -> None:
    """The listener would notice: every local address leads to it."""
    before = forbidden.count
    for address in ("127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])):
        socket.create_connection((address, forbidden.port), timeout=60).close()
        before += 1
        wait_until(lambda wanted=before: forbidden.count == wanted, what="the connection")


@pytest.mark.parametrize("form", FORMS)
def test_no_spelling_reaches_this_machine(guarded: ScriptedServer, forbidden: ForbiddenListener, form: str) -> None:
    """Each form is a 400 that names its part, and nobody connects."""
    before = forbidden.count
    check_refused(guarded.post(ask(form.replace("PORT", str(forbidden.port)))))
    assert forbidden.count == before


def test_no_name_or_address_of_this_machine_is_reached(guarded: ScriptedServer, forbidden: ForbiddenListener) -> None:
    """Neither the machine's own name nor its addresses on the network are fetched from."""
    before = forbidden.count
    name = socket.gethostname()
    hosts = {name}
    with contextlib.suppress(OSError):  # the machine may not know its own name
        hosts |= {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, family=socket.AF_INET)}
    for host in hosts:
        check_refused(guarded.post(ask(f"http://{host}:{forbidden.port}/")))
    assert forbidden.count == before


def test_ports_besides_80_and_443_are_refused(api: ScriptedServer, forbidden: ForbiddenListener) -> None:
    """By default no other port is connected to, whatever the host; the message names the ones that are."""
    before = forbidden.count
    for host in ("127.0.0.1", "93.184.216.34", "example.com"):
        response = api.post(ask(f"http://{host}:{forbidden.port}/"))
        check_refused(response)
        assert "80, 443" in response.json()["error"]["message"]
    assert forbidden.count == before


@pytest.fixture(scope="module")
def redirecting(forbidden: ForbiddenListener) -> Iterator[PictureServer]:
    """Serve redirects to every location of the table, with every status."""

    async def handle(exchange: Exchange) -> None:
        number, _, status = exchange.path.removeprefix("/").partition("?")
        location = LOCATIONS[int(number)].replace("PORT", str(forbidden.port)) if number.isdigit() else exchange.path
        await exchange.answer(status=f"{status or 302} Moved", location=location)

    with PictureServer(handle) as server:
        yield server


@pytest.fixture(scope="module")
def following(
    start_api: StartApi, forbidden: ForbiddenListener, redirecting: PictureServer
) -> Iterator[ScriptedServer]:
    """Start an API process that may fetch from the redirecting server and from the public internet only."""
    with start_api(
        NIM_ALLOWED_MEDIA_DOMAINS=f"127.0.0.1:{redirecting.port},*",
        NIM_ALLOWED_MEDIA_PORTS=f"80,443,{forbidden.port}",
    ) as server:
        yield server


@pytest.mark.parametrize("number", range(len(LOCATIONS)), ids=LOCATIONS)
def test_no_redirect_reaches_this_machine(
    following: ScriptedServer, redirecting: PictureServer, forbidden: ForbiddenListener, number: int
) -> None:
    """Each redirect is judged like the caller's own URL: the redirect is seen, its target is not."""
    before, seen = forbidden.count, len(redirecting.exchanges)
    check_refused(following.post(ask(f"{redirecting.url}/{number}")))
    assert len(redirecting.exchanges) > seen
    assert forbidden.count == before


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_judged(
    following: ScriptedServer, redirecting: PictureServer, forbidden: ForbiddenListener, status: int
) -> None:
    """The status of a redirect makes no difference."""
    before = forbidden.count
    check_refused(following.post(ask(f"{redirecting.url}/0?{status}")))
    assert forbidden.count == before


PUBLIC = "93.184.216.34"

ANSWERS = [
    ["127.0.0.1"],
    ["::1"],
    ["0.0.0.0"],
    ["::ffff:127.0.0.1"],
    ["::ffff:7f00:1"],
    ["64:ff9b::7f00:1"],
    ["2002:7f00:1::"],
    ["169.254.169.254"],
    ["10.1.2.3"],
    ["100.64.9.9"],
    ["fd12::1"],
    ["fe80::1%lo"],
    ["224.0.0.251"],
    [PUBLIC, "127.0.0.1"],
    ["127.0.0.1", PUBLIC],
    ["2606:2800:220:1::1", "::1"],
    ["not an address"],
    [],
]


class Network:
    """A resolver and a dialer for ``UrlFetcher``: names lead where the test says, public addresses to its server."""

    def __init__(self, answers: Sequence[Sequence[str]], port: int = 0) -> None:
        self.answers = list(answers)
        self.port = port
        self.asked: list[str] = []
        self.dialled: list[str] = []

    async def resolve(self, host: str, _port: int) -> Sequence[str]:
        """Give each answer once, and the last one from then on."""
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def dial(self, address: str, port: int, _tls: object, _name: str) -> Connection:
        """Connect for real to everything but the public address, which stands for the test's server."""
        self.dialled.append(address)
        if address == PUBLIC:
            return await asyncio.open_connection("127.0.0.1", self.port)
        return await asyncio.open_connection(address, port)


def resolve_picture(network: Network, url: str, policy: FetchPolicy) -> None:
    """Resolve a request's picture as the chat service does, with a network of the test."""
    fetcher = UrlFetcher(policy, FetchLimits(), resolve=network.resolve, dial=network.dial)
    content = (TextPart("What is this?"), ImagePart(ImageSource(url), param="messages.0.content.1"))
    request = ChatRequest("m", (UserMessage(content),))
    uvloop.run(MediaResolver(MediaLimits(), NoDecoder(), fetcher).resolve(request, vision=True))


class NoDecoder:
    """A decoder that is never reached."""

    async def decode(self, *_: object) -> Any:
        raise AssertionError


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: ",".join(answer) or "none")
def test_name_that_leads_inside_is_refused(forbidden: ForbiddenListener, answer: list[str]) -> None:
    """A name with any address that is not public is refused after one look-up, and nothing is dialled."""
    before = forbidden.count
    network = Network([answer])
    with pytest.raises(MediaError, match=r"messages\.0\.content\.1") as refused:
        resolve_picture(network, f"http://evil.example:{forbidden.port}/", FetchPolicy(ports=(forbidden.port,)))
    assert refused.value.param == "messages.0.content.1"
    assert network.asked == ["evil.example"]
    assert network.dialled == []
    assert forbidden.count == before


def test_rebinding_name_is_resolved_once(forbidden: ForbiddenListener) -> None:
    """A name that answers with a public address first and this machine afterwards is connected to by the first."""
    before = forbidden.count
    with PictureServer(serving({})) as public:
        network = Network([[PUBLIC], ["127.0.0.1"]], public.port)
        with pytest.raises(MediaError, match="status 404"):
            resolve_picture(network, f"http://rebind.example:{forbidden.port}/x", FetchPolicy(ports=(forbidden.port,)))
        assert public.exchanges[0].headers["host"] == f"rebind.example:{forbidden.port}"
    assert network.asked == ["rebind.example"]
    assert network.dialled == [PUBLIC]
    assert forbidden.count == before


def test_redirect_to_a_rebound_name_is_judged_again(forbidden: ForbiddenListener) -> None:
    """A redirect to the same name is resolved and judged anew: the second answer is refused."""
    before = forbidden.count

    async def redirect(exchange: Exchange) -> None:
        await exchange.answer(status="302 Found", location="/next")

    with PictureServer(redirect) as public:
        network = Network([[PUBLIC], ["127.0.0.1"]], public.port)
        with pytest.raises(MediaError, match="redirects"):
            resolve_picture(network, f"http://rebind.example:{forbidden.port}/x", FetchPolicy(ports=(forbidden.port,)))
    assert network.dialled == [PUBLIC]
    assert forbidden.count == before


def test_listed_name_does_not_open_the_metadata_service() -> None:
    """A listed name may lead to the private network, but not to metadata, multicast or translated addresses."""
    policy = FetchPolicy(["images.internal"])
    for answer in ("169.254.169.254", "fd00:ec2::254", "224.0.0.1", "0.0.0.0", "::ffff:10.0.0.1", "64:ff9b::a00:1"):
        network = Network([[answer]])
        with pytest.raises(MediaError):
            resolve_picture(network, "http://images.internal/", policy)
        assert network.dialled == []
    with PictureServer(serving({"/": plain()})) as server:
        network = Network([["127.0.0.1"]])
        with pytest.raises(AssertionError):  # the picture arrived, and NoDecoder was given it
            resolve_picture(
                network, f"http://images.internal:{server.port}/", FetchPolicy([f"images.internal:{server.port}"])
            )
        assert network.dialled == ["127.0.0.1"]
