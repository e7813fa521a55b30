"""The step stream between client and server: one connection for all sequences, and what happens when a side goes."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats, FinishReason, Usage
from engine.errors import EngineError, EngineUnavailableError, QueueFullError
from engine.server import InferenceService, create_server
from engine.step_messages import LENGTH, stream_path
from engine.triton import step_stream
from engine.triton.client import EngineClient
from engine.triton.mailbox import Mailbox
from tests.engine.receivers import Recorder

LIMITS = EngineLimits(64, 2, 2, 100, vision=False, grammar=False, logprobs=False, core="gated", model="m")
DEADLINE_S = 100.0


class GatedCore:
    """A core whose sequences give their first id at once, the second when the gate opens, and the last right after."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.known_limits = LIMITS

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        if request.request_id == "refused":
            raise QueueFullError("full")
        if request.request_id == "broken":
            raise RuntimeError("a fault of the core")
        self.running += 1
        try:
            yield EngineDelta((request.prompt_ids[0],), usage=Usage(1, 0, 1))
            await self.gate.wait()
            yield EngineDelta((2,))
            yield EngineDelta((3,), (), FinishReason.STOP, Usage(1, 0, 3))
        finally:
            self.running -= 1

    async def abort(self, request_id: str) -> None: ...

    async def health(self) -> bool:
        return True

    def limits(self) -> EngineLimits:
        return self.known_limits

    def stats(self) -> EngineStats:
        return EngineStats(self.running, 0, 0, 0, 0, 0)

    async def close(self) -> None: ...


class CountingService(InferenceService):
    """The service, with a count of the calls that a client is to spare."""

    def __init__(self, core: GatedCore) -> None:
        super().__init__()
        self.core = core
        self.calls: list[str] = []

    async def ModelConfig(self, request, context):  # noqa: N802 - the protocol's name
        self.calls.append("limits")
        return await super().ModelConfig(request, context)

    async def ModelStreamInfer(self, requests, context):  # noqa: N802 - the protocol's name
        self.calls.append("stream")
        async for response in super().ModelStreamInfer(requests, context):
            yield response


@asynccontextmanager
async def serving(address: str, core: GatedCore | None = None) -> AsyncIterator[CountingService]:
    """Serve a core at an address."""
    service = CountingService(core or GatedCore())
    server = create_server(service, address)
    await server.start()
    try:
        yield service
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(name: str = "e", **options) -> AsyncIterator[tuple[CountingService, EngineClient, str]]:
    """Serve a core and connect a client to it."""
    with tempfile.TemporaryDirectory(prefix="step") as folder:
        address = f"unix:{folder}/{name}"
        async with serving(address, **options) as service:
            client = EngineClient([address])
            try:
                yield service, client, address
            finally:
                await client.close()


async def begin(client: EngineClient, number: int = 1, request_id: str = "r"):
    """Start a sequence and return its receiver and itself."""
    recorder = Recorder()
    return recorder, await client.start(EngineRequest(request_id, (number,), 9), recorder)


async def until(condition) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_step_of_all_sequences_comes_together(monkeypatch):
    """Thirty sequences share a connection, and what one step draws for them comes in a message or two."""
    messages = []
    deliver = step_stream.deliver
    monkeypatch.setattr(step_stream, "deliver", lambda *given: (messages.append(given), deliver(*given)))

    async def main():
        async with connected() as (service, client, _):
            started = [await begin(client, number) for number in range(1, 31)]
            await until(lambda: all(recorder.deltas for recorder, _ in started))
            messages.clear()
            service.core.gate.set()
            await asyncio.gather(*(recorder.ended() for recorder, _ in started))
            assert len(messages) <= 3
            assert service.calls.count("stream") == 0
            for number, (recorder, running) in enumerate(started, start=1):
                assert [delta.token_ids for delta in recorder.deltas] == [(number,), (2,), (3,)]
                assert recorder.deltas[0].usage == Usage(1, 0, 1)
                assert recorder.deltas[2].finish_reason is FinishReason.STOP
                running.close()

    asyncio.run(main())


def test_closing_a_sequence_ends_it_alone():
    """The core's slot is freed, nothing more is heard of it, and the others go on."""

    async def main():
        async with connected() as (service, client, _):
            (victim, running), (other, _) = [await begin(client) for _ in range(2)]
            await until(lambda: service.core.running == 2)
            running.close()
            running.close()
            await until(lambda: service.core.running == 1)
            service.core.gate.set()
            await other.ended()
            assert not victim.has_ended
            assert other.error is None

    asyncio.run(main())


def test_a_client_that_vanishes_ends_its_sequences():
    """Closing the connection frees every slot, also those that were started a moment ago."""

    async def main():
        async with connected() as (service, client, _):
            started = [await begin(client) for _ in range(5)]
            await until(lambda: service.core.running == 5)
            await begin(client)
            await client.close()
            await until(lambda: service.core.running == 0)
            await started[0][0].ended()
            assert isinstance(started[0][0].error, EngineUnavailableError)

    asyncio.run(main())


def test_errors_belong_to_their_sequence():
    """A refusal keeps its class, a fault of the core tells nothing of it, and neither touches the neighbour."""

    async def main():
        async with connected() as (service, client, _):
            refused, _ = await begin(client, request_id="refused")
            broken, _ = await begin(client, request_id="broken")
            fine, _ = await begin(client)
            service.core.gate.set()
            for recorder in (refused, broken, fine):
                await recorder.ended()
            assert isinstance(refused.error, QueueFullError)
            assert type(broken.error) is EngineError
            assert "fault" not in broken.error.message
            assert fine.error is None

    asyncio.run(main())


def test_a_lost_server_is_told_and_found_again():
    """Running sequences fail at once; when a server is back at the address, the next one works, with its new limits."""

    async def main():
        with tempfile.TemporaryDirectory(prefix="step") as folder:
            address = f"unix:{folder}/e"
            client = EngineClient([address])
            async with serving(address):
                assert await client.limits() == LIMITS
                recorder, _ = await begin(client)
                await until(lambda: recorder.deltas)
            await recorder.ended()
            assert isinstance(recorder.error, EngineUnavailableError)
            core = GatedCore()
            core.known_limits = replace(LIMITS, context_tokens=128)
            core.gate.set()
            async with serving(address, core):
                recorder, _ = await begin(client)
                await recorder.ended()
                assert recorder.error is None
                assert (await client.limits()).context_tokens == 128
            await client.close()

    asyncio.run(main())


def test_a_connection_that_ends_under_the_first_question_is_replaced():
    """A channel may hold a connection to a server that has gone; the sequence finds the one that is there now."""

    async def main(folder: str):
        cut = asyncio.Event()
        passing: list[asyncio.Task] = []

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # An end that went under the other's last frame, an answered ping, has lost its connection too: no fault.
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    if b"ServerMetadata" in data and not cut.is_set():
                        cut.set()
                        break
                    writer.write(data)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            passing.append(asyncio.current_task())
            answers, questions = await asyncio.open_unix_connection(f"{folder}/real")
            await asyncio.gather(pass_on(reader, questions), pass_on(answers, writer))

        core = GatedCore()
        core.gate.set()
        async with serving(f"unix:{folder}/real", core), await asyncio.start_unix_server(accept, f"{folder}/e"):
            client = EngineClient([f"unix:{folder}/e"])
            recorder, _ = await begin(client)
            await recorder.ended()
            assert recorder.error is None
            assert cut.is_set()
            await client.close()
            await asyncio.gather(*passing)

    with tempfile.TemporaryDirectory(prefix="step") as folder:
        Path(stream_path(f"unix:{folder}/e")).symlink_to(stream_path(f"unix:{folder}/real"))
        asyncio.run(main(folder))


def test_limits_are_asked_for_once():
    """However many requests come, the engine tells its limits once per connection."""

    async def main():
        async with connected() as (service, client, _):
            assert [await client.limits() for _ in range(5)] == [LIMITS] * 5
            await begin(client)
            assert await client.limits() == LIMITS
            assert service.calls.count("limits") == 1

    asyncio.run(main())


def test_a_server_without_step_streams_gets_an_rpc_per_sequence(monkeypatch):
    """That is how any other server of the protocol is used; closing cancels the RPC."""
    monkeypatch.setattr("engine.server.EXTENSION", "another_extension")

    async def main():
        async with connected() as (service, client, _):
            (recorder, running), (other, _) = [await begin(client, number) for number in (4, 5)]
            await until(lambda: recorder.deltas and other.deltas)
            assert service.calls.count("stream") == 2
            running.close()
            await until(lambda: service.core.running == 1)
            service.core.gate.set()
            await other.ended()
            assert [delta.token_ids for delta in other.deltas] == [(5,), (2,), (3,)]
            assert not recorder.has_ended
            refused, _ = await begin(client, request_id="refused")
            await refused.ended()
            assert isinstance(refused.error, QueueFullError)

    asyncio.run(main())


def test_an_address_too_long_for_the_stream_still_works():
    """The stream's path is longer than the service's; where it does not fit, there are RPCs."""

    async def main():
        room = 107 - len(tempfile.gettempdir()) - len("/stepXXXXXXXX/")
        async with connected("e" * room) as (service, client, _):
            service.core.gate.set()
            recorder, _ = await begin(client)
            await recorder.ended()
            assert recorder.error is None
            assert service.calls.count("stream") == 1

    asyncio.run(main())


def test_a_connection_that_breaks_the_protocol_is_closed():
    """An impossible length ends that connection and no other."""

    async def main():
        async with connected() as (service, client, address):
            recorder, _ = await begin(client)
            reader, writer = await asyncio.open_unix_connection(stream_path(address))
            writer.write(LENGTH.pack(2**32 - 1) + b"x" * 100)
            async with asyncio.timeout(DEADLINE_S):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()
            service.core.gate.set()
            await recorder.ended()
            assert recorder.error is None

    asyncio.run(main())


def test_nothing_is_started_on_a_stream_that_has_broken():
    """It is refused at once: nobody would ever tell its receiver."""

    async def main():
        async with connected() as (_, _, address):
            stream = await step_stream.StepStream.connect(stream_path(address))
            stream.close()
            await until(lambda: not stream.is_open)
            with pytest.raises(EngineUnavailableError):
                stream.start(EngineRequest("r", (1,), 9), Mailbox())

    asyncio.run(main())


@pytest.mark.parametrize("way", ["stream", "rpc"])
def test_generate_can_be_given_up(way, monkeypatch):
    """Closing the iterator frees the slot, whichever way the sequence travels."""
    if way == "rpc":
        monkeypatch.setattr("engine.server.EXTENSION", "another_extension")

    async def main():
        async with connected() as (service, client, _):
            deltas = client.generate(EngineRequest("r", (1,), 9))
            assert (await anext(deltas)).token_ids == (1,)
            assert service.core.running == 1
            await deltas.aclose()
            await until(lambda: service.core.running == 0)

    asyncio.run(main())
