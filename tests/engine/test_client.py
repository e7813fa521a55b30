"""The engine client's own behaviour: several endpoints, unreachable ones, errors of other servers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats, FinishReason, Usage
from engine.errors import EngineError, EngineUnavailableError
from engine.server import InferenceService, create_server
from engine.triton.client import EngineClient
from engine.triton.connection import ConnectionOptions
from engine.triton.protocol import GRPCInferenceServiceStub, service_pb2

LIMITS = EngineLimits(64, 2, 2, 100, vision=False, grammar=False, logprobs=False, core="counting", model="m")


class CountingCore:
    """A core that gives ids until it is told to finish, and counts its sequences."""

    def __init__(self) -> None:
        self.running = 0
        self.total = 0
        self.adapters = ()
        self.gate = asyncio.Event()

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        self.running += 1
        self.total += 1
        try:
            yield EngineDelta((1,))
            await self.gate.wait()
            yield EngineDelta((2,), (), FinishReason.STOP, Usage(len(request.prompt_ids), 0, 2))
        finally:
            self.running -= 1

    async def abort(self, request_id: str) -> None: ...

    async def health(self) -> bool:
        return True

    def limits(self) -> EngineLimits:
        return dataclasses.replace(LIMITS, adapters=self.adapters)

    def stats(self) -> EngineStats:
        return EngineStats(self.running, 0, self.total, 0, 0, 0)

    async def close(self) -> None: ...


@asynccontextmanager
async def serving(count):
    """Serve some counting cores; yields them and their addresses."""
    with tempfile.TemporaryDirectory(prefix="engine") as folder:
        async with contextlib.AsyncExitStack() as stack:
            cores, addresses = [], []
            for index in range(count):
                service = InferenceService()
                service.core = CountingCore()
                addresses.append(f"unix:{folder}/{index}")
                server = create_server(service, addresses[-1])
                await server.start()
                stack.push_async_callback(server.stop, 0)
                cores.append(service.core)
            yield cores, addresses


@asynccontextmanager
async def client_of(addresses, options=None):
    client = EngineClient(addresses, options)
    try:
        yield client
    finally:
        await client.close()


def ask(number):
    return EngineRequest(f"r{number}", (1, 2, 3), 4)


def test_an_engine_that_has_just_started_tells_its_limits_to_who_could_not_reach_it(monkeypatch):
    """A connection pauses after a failed attempt; what begins to listen within that pause is found all the same."""
    # For failures there is no need to wait, and a machine may be so busy that a pause takes longer than it should.
    failing, patient = 0.3, 60.0

    async def main():
        with tempfile.TemporaryDirectory(prefix="engine") as folder:
            address = f"unix:{folder}/0"
            async with client_of([address]) as early:
                # Each failure makes the next pause longer, up to a second.
                monkeypatch.setattr("engine.triton.client.RECONNECT_WAIT_S", failing)
                for _ in range(3):
                    with pytest.raises(EngineUnavailableError, match="no engine has loaded its model yet"):
                        await early.limits()
                service = InferenceService()
                service.core = CountingCore()
                server = create_server(service, address)
                await server.start()
                monkeypatch.setattr("engine.triton.client.RECONNECT_WAIT_S", patient)
                try:
                    return await early.limits()
                finally:
                    await server.stop(0)

    assert asyncio.run(main()) == LIMITS


def test_load_is_shared_by_outstanding_requests():
    """New sequences go to the endpoint that has the fewest."""

    async def main():
        async with serving(2) as (cores, addresses), client_of(addresses) as client:
            streams = [client.generate(ask(i)) for i in range(6)]
            for stream in streams:
                await anext(stream)
            assert [core.running for core in cores] == [3, 3]
            assert (await client.stats()).running == 6
            for core in cores:
                core.gate.set()
            ends = [[delta async for delta in stream][-1] for stream in streams]
            assert all(end.finish_reason is FinishReason.STOP for end in ends)
            assert await client.ready()
            assert await client.limits() == LIMITS

    asyncio.run(main())


def test_a_lost_endpoint_does_not_hide_the_other():
    """With one of two engines gone the client is still ready, and limits and stats come from the other."""

    async def main():
        async with serving(1) as (_, addresses), client_of(["unix:/nowhere/e.sock", *addresses]) as client:
            assert await client.ready()
            assert await client.limits() == LIMITS
            assert (await client.stats()).running == 0

    asyncio.run(main())


def test_an_engine_that_hangs_does_not_keep_another_from_being_ready():
    """One that takes a question and never answers is not waited for."""

    class HangingCore(CountingCore):
        async def health(self) -> bool:
            return await asyncio.Event().wait()

    async def main():
        async with serving(1) as (_, addresses):
            service = InferenceService()
            service.core = HangingCore()
            server = create_server(service, f"{addresses[0]}-hanging")
            await server.start()
            endpoints = [f"{addresses[0]}-hanging", *addresses]
            async with client_of(endpoints, ConnectionOptions(call_timeout_s=1000)) as client, asyncio.timeout(60):
                assert await client.ready()
            await server.stop(0)

    asyncio.run(main())


def test_an_unreachable_engine_is_an_error_within_the_deadline():
    """Connecting has a deadline."""

    async def main():
        async with client_of(["unix:/nowhere/e.sock"], ConnectionOptions(connect_timeout_s=0.2)) as client:
            assert not await client.ready()
            with pytest.raises(EngineUnavailableError):
                await client.limits()
            with pytest.raises(EngineUnavailableError):
                await anext(client.generate(ask(0)))

    asyncio.run(main())


def test_a_server_without_the_service_is_an_engine_error():
    """A gRPC status that is not about reachability keeps its text."""

    async def main():
        with tempfile.TemporaryDirectory(prefix="engine") as folder:
            server = grpc.aio.server()
            server.add_insecure_port(f"unix:{folder}/e")
            await server.start()
            async with client_of([f"unix:{folder}/e"]) as client:
                with pytest.raises(EngineError) as caught:
                    await anext(client.generate(ask(0)))
            await server.stop(0)
            assert not isinstance(caught.value, EngineUnavailableError)

    asyncio.run(main())


def test_another_model_name_is_refused():
    """The server knows one model; the protocol's other names get NOT_FOUND."""

    async def main():
        async with serving(1) as (_, addresses), grpc.aio.insecure_channel(addresses[0]) as channel:
            stub = GRPCInferenceServiceStub(channel)
            pb = service_pb2
            assert (await stub.ServerLive(pb.ServerLiveRequest())).live
            assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
            assert not (await stub.ModelReady(pb.ModelReadyRequest(name="other"))).ready
            assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name
            metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="gemma4"))
            assert "input_ids" in [tensor.name for tensor in metadata.inputs]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelMetadata(pb.ModelMetadataRequest(name="other"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(main())


def test_a_client_needs_an_endpoint():
    """No endpoint at all is a programming error, told at once."""
    with pytest.raises(ValueError, match="endpoint"):
        EngineClient([])


def test_adapters_of_several_engines_are_those_that_all_have():
    """A sequence may run at any of them; one that is away hides nothing, and what was told before does neither."""

    async def main():
        async with serving(2) as (cores, addresses), client_of(["unix:/nowhere/e.sock", *addresses]) as client:
            assert await client.adapters() == ()
            assert await client.limits() == LIMITS
            cores[0].adapters, cores[1].adapters = ("a", "b"), ("b", "c")
            assert await client.adapters() == ("b",)
            cores[0].adapters = ("b", "c", "d")
            assert await client.adapters() == ("b", "c")
        async with client_of(["unix:/nowhere/e.sock"]) as client:
            with pytest.raises(EngineUnavailableError):
                await client.adapters()

    asyncio.run(main())
