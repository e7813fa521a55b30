"""Several engines behind one client: who gets a sequence, what happens when one is away, and connecting by TLS."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats, FinishReason, Usage
from engine.errors import EngineUnavailableError, QueueFullError
from engine.server import InferenceService, create_server
from engine.triton.client import EngineClient
from engine.triton.connection import ConnectionOptions, TlsFiles
from engine.triton.protocol import add_GRPCInferenceServiceServicer_to_server
from tests.fakes.processes import free_port

LIMITS = EngineLimits(64, 2, 2, 100, vision=False, grammar=False, logprobs=False, core="gated", model="m")
TLS = Path(__file__).parents[2] / "data" / "tls"
QUICK = ConnectionOptions(connect_timeout_s=1.0)


class GatedCore:
    """Gives one id, waits for its gate, gives the last; or raises what it is told to."""

    def __init__(self):
        self.running = 0
        self.total = 0
        self.gate = asyncio.Event()
        self.refusal = None
        self.loss = asyncio.Event()

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        self.total += 1
        if self.refusal is not None:
            raise self.refusal
        self.running += 1
        try:
            yield EngineDelta((1,))
            waits = [asyncio.create_task(event.wait()) for event in (self.gate, self.loss)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self.loss.is_set():
                raise EngineUnavailableError("lost")
            yield EngineDelta((2,), (), FinishReason.STOP, Usage(len(request.prompt_ids), 0, 2))
        finally:
            self.running -= 1

    async def abort(self, request_id: str) -> None: ...

    async def health(self) -> bool:
        return True

    def limits(self) -> EngineLimits:
        return LIMITS

    def stats(self) -> EngineStats:
        return EngineStats(self.running, 0, self.total, 0, 0, 0)

    async def close(self) -> None: ...


@asynccontextmanager
async def engines(count, kind="unix"):
    """Serve some cores, at unix sockets with step streams or at ports without; yields services and addresses."""
    with tempfile.TemporaryDirectory(prefix="engine") as folder:
        async with contextlib.AsyncExitStack() as stack:
            services, addresses = [], []
            for index in range(count):
                service = InferenceService()
                service.core = GatedCore()
                addresses.append(f"unix:{folder}/{index}" if kind == "unix" else f"127.0.0.1:{free_port()}")
                server = create_server(service, addresses[-1])
                await server.start()
                stack.push_async_callback(server.stop, 0)
                services.append(service)
            yield services, addresses


@asynccontextmanager
async def client_of(addresses, options=None):
    client = EngineClient(addresses, options)
    try:
        yield client
    finally:
        await client.close()


def ask(number=0):
    return EngineRequest(f"r{number}", (1, 2, 3), 4)


async def whole(client, number=0):
    return [delta async for delta in client.generate(ask(number))]


def test_an_engine_that_is_away_costs_no_request():
    """With one of three engines unreachable every sequence runs, at once, and shared by the other two."""

    async def main():
        patient = ConnectionOptions(connect_timeout_s=1000)
        async with engines(2) as (services, addresses), client_of(["unix:/nowhere/e", *addresses], patient) as client:
            streams = [client.generate(ask(i)) for i in range(10)]
            async with asyncio.timeout(60):
                for stream in streams:
                    await anext(stream)
            assert [service.core.running for service in services] == [5, 5]
            for service in services:
                service.core.gate.set()
            for stream in streams:
                assert [delta async for delta in stream][-1].finish_reason is FinishReason.STOP

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_loading_engine_is_passed_over(kind):
    """An engine that answers but has not loaded its model gives its sequences to the others."""

    async def main():
        async with engines(2, kind) as (services, addresses), client_of(addresses) as client:
            core, services[0].core = services[0].core, None
            services[1].core.gate.set()
            ends = await asyncio.gather(*(whole(client, i) for i in range(6)))
            assert all(end[-1].finish_reason is FinishReason.STOP for end in ends)
            services[0].core = core
            core.gate.set()
            # Its rest over, it takes part again.
            async with asyncio.timeout(60):
                while core.total == 0:
                    await asyncio.gather(*(whole(client, i) for i in range(4)))
                    await asyncio.sleep(0.05)

    asyncio.run(main())


def test_a_refusal_is_not_tried_elsewhere():
    """Only a lost engine makes a sequence start again; what an engine refuses is the caller's to know."""

    async def main():
        async with engines(2) as (services, addresses), client_of(addresses) as client:
            for service in services:
                service.core.refusal = QueueFullError("full")
            with pytest.raises(QueueFullError):
                await whole(client)
            assert sum(service.core.total for service in services) == 1

    asyncio.run(main())


def test_a_sequence_that_has_begun_does_not_start_again():
    """Ids that were handed out cannot be taken back, so a later loss is an error."""

    async def main():
        async with engines(1) as (first, left), engines(1) as (second, right), client_of([*left, *right]) as client:
            stream = client.generate(ask())
            await anext(stream)
            used, spare = (first, second) if first[0].core.running else (second, first)
            used[0].core.loss.set()
            with pytest.raises(EngineUnavailableError):
                await anext(stream)
            assert spare[0].core.total == 0

    asyncio.run(main())


def test_with_no_engine_left_the_error_comes_in_time():
    """All engines away is one error, after the time that one may take to come back."""

    async def main():
        async with client_of(["unix:/nowhere/a", "unix:/nowhere/b"], QUICK) as client:
            begun = time.monotonic()
            with pytest.raises(EngineUnavailableError):
                await whole(client)
            return time.monotonic() - begun

    assert 0.9 < asyncio.run(main()) < 60


def test_closing_early_lets_go_everywhere():
    """A consumer that leaves frees its engine, also behind the balancer."""

    async def main():
        async with engines(2) as (services, addresses), client_of(addresses) as client:
            stream = client.generate(ask())
            await anext(stream)
            await stream.aclose()
            async with asyncio.timeout(60):
                while any(service.core.running for service in services):
                    await asyncio.sleep(0.005)

    asyncio.run(main())


@asynccontextmanager
async def secured(*, demand_certificate=False):
    """Serve one core by TLS on a port of this machine; yields its address."""
    service = InferenceService()
    service.core = GatedCore()
    service.core.gate.set()
    pem = (TLS / "server.pem").read_bytes()
    clients = (TLS / "client.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(pem, pem)], clients, require_client_auth=demand_certificate)
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def secure(connect_timeout_s=60.0, **changes):
    fields = {"authorities": TLS / "authority.pem", "server_name": "images.test"} | changes
    return ConnectionOptions(connect_timeout_s=connect_timeout_s, tls=TlsFiles(**fields))


def test_a_sequence_runs_by_tls():
    """The server's certificate is checked against the given authority and name."""

    async def main():
        async with secured() as address, client_of([address], secure()) as client:
            assert await client.ready()
            assert (await whole(client))[-1].finish_reason is FinishReason.STOP

    asyncio.run(main())


@pytest.mark.parametrize("changes", [{"server_name": "other.test"}, {"authorities": None}])
def test_a_certificate_that_does_not_fit_is_refused(changes):
    """A wrong name, or an authority that nobody trusts: the engine counts as unreachable."""

    async def main():
        async with secured() as address, client_of([address], secure(0.5, **changes)) as client:
            assert not await client.ready()
            with pytest.raises(EngineUnavailableError):
                await whole(client)

    asyncio.run(main())


def test_a_client_certificate_is_shown_where_it_is_demanded():
    """The engine's side of mutual TLS: without a certificate nothing, with one everything."""
    own = {"certificate": TLS / "client.pem", "key": TLS / "client.pem"}

    async def main():
        async with secured(demand_certificate=True) as address:
            async with client_of([address], secure(0.5)) as stranger:
                assert not await stranger.ready()
            async with client_of([address], secure(**own)) as friend:
                assert (await whole(friend))[-1].finish_reason is FinishReason.STOP

    asyncio.run(main())


def test_a_unix_socket_needs_no_tls():
    """Addresses of both kinds may stand side by side: files protect the socket."""

    async def main():
        async with engines(1) as (services, addresses), client_of(addresses, secure()) as client:
            services[0].core.gate.set()
            assert (await whole(client))[-1].finish_reason is FinishReason.STOP

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"connect_timeout_s": 0}, "connect_timeout_s"),
        ({"keepalive_s": -1}, "keepalive_s"),
        ({"tls": TlsFiles(certificate=TLS / "server.pem")}, "key"),
    ],
)
def test_impossible_options_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        ConnectionOptions(**fields)
