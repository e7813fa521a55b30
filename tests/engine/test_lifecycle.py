# ruff: noqa: ASYNC220, ASYNC240 - blocking for a moment is fine in a test
"""Aborts, limits of the queue, and what happens when the engine process or its client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.core import FinishReason
from engine.errors import EngineError, EngineUnavailableError, QueueFullError
from engine.llama_cpp.core import LlamaCppCore
from engine.triton.client import EngineClient
from engine.triton.connection import ConnectionOptions
from tests.fakes.measuring import best
from tests.fakes.processes import free_port, is_running

ENDLESS = 1900
"""More ids than are drawn before the test is over."""
LONG_CONTEXT = 8192
VERY_LONG = 8000
"""The same where nothing may come to its end, though this process be held up for seconds."""


@contextlib.asynccontextmanager
async def connected(process):
    client = EngineClient([process.endpoint])
    try:
        await process.wait_ready(client)
        yield client
    finally:
        await client.close()


async def started(engine, wanted):
    """Start a sequence and return its iterator after the first delta."""
    deltas = engine.generate(wanted)
    await anext(deltas)
    return deltas


def is_idle(engine, tools):
    """Return a condition: nothing runs and nothing waits."""

    async def check():
        return await tools.stats_of(engine) == (0, 0)

    return check


def test_closing_the_iterator_frees_the_slot(run, tools, vocabulary):
    """A consumer that stops reading ends its sequence within a tenth of a second."""

    async def body(engine):
        deltas = await started(engine, tools.request(vocabulary.prompt(8), ENDLESS))
        assert (await tools.stats_of(engine))[0] == 1
        await deltas.aclose()
        begun = time.perf_counter()
        await tools.wait_until(is_idle(engine, tools), 60)
        return time.perf_counter() - begun

    assert best(lambda: run(body), below=0.25) < 0.25


def test_a_cancelled_consumer_frees_the_slot(run, tools, vocabulary):
    """Cancelling the task that reads ends the sequence as well."""

    async def body(engine):
        task = asyncio.create_task(tools.collect(engine, tools.request(vocabulary.prompt(8), ENDLESS)))
        await tools.wait_until(lambda: _runs(engine, tools), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await tools.wait_until(is_idle(engine, tools), 60)

    run(body)


async def _runs(engine, tools):
    return (await tools.stats_of(engine))[0] == 1


def test_the_core_aborts_by_id(shared_core, tools, vocabulary):
    """abort() ends a running sequence with ABORT and its usage in well under 50 ms."""

    async def aborted():
        deltas = await started(shared_core, tools.request(vocabulary.prompt(8), ENDLESS, request_id="victim"))
        begun = time.perf_counter()
        await shared_core.abort("victim")
        last = [delta async for delta in deltas][-1]
        took = time.perf_counter() - begun
        await tools.wait_until(is_idle(shared_core, tools), 60)
        assert last.finish_reason is FinishReason.ABORT
        assert last.usage is not None
        assert last.usage.completion_tokens >= 1
        return took

    assert best(lambda: asyncio.run(aborted()), below=0.05) < 0.05


def test_the_core_aborts_while_preparing(shared_core, tools, vocabulary, monkeypatch):
    """A request whose grammar is still being compiled can be aborted, too."""
    wanted = tools.request(vocabulary.prompt(8), 8, request_id="early", grammar="start: /[0-9]+/")
    go_on = threading.Event()
    genuine = shared_core._grammars.compile

    def compile_later(*arguments):
        assert go_on.wait(100)
        return genuine(*arguments)

    monkeypatch.setattr(shared_core._grammars, "compile", compile_later)

    async def main():
        task = asyncio.create_task(tools.collect(shared_core, wanted))
        try:
            await tools.wait_until(lambda: _waits(shared_core, tools), 60)
            await shared_core.abort("early")
            return await task
        finally:
            go_on.set()

    result = asyncio.run(main())
    assert result.finish_reason is FinishReason.ABORT
    assert result.token_ids == []


async def _waits(engine, tools):
    return (await tools.stats_of(engine))[1] == 1


def test_aborting_an_unknown_id_does_nothing(run):
    """abort() of an id that does not run is no error."""
    run(lambda engine: engine.abort("nobody"))


def test_the_client_aborts_by_id(shared_process, tools, vocabulary):
    """abort() on the client cancels the sequence in the engine."""

    async def main():
        async with connected(shared_process) as client:
            deltas = await started(client, tools.request(vocabulary.prompt(8), ENDLESS, request_id="victim"))
            await client.abort("victim")
            with pytest.raises((EngineUnavailableError, asyncio.CancelledError)):
                _ = [delta async for delta in deltas]
            await tools.wait_until(is_idle(client, tools), 60)

    asyncio.run(main())


def test_the_queue_has_a_limit_and_order(make_runtime, tools, vocabulary):
    """One runs, two wait, the fourth is refused; the one of higher priority runs first."""

    async def main():
        core = LlamaCppCore(make_runtime(max_sequences=1, max_queued=2, context_tokens=LONG_CONTEXT))
        first = await started(core, tools.request(vocabulary.prompt(8), VERY_LONG))
        order = []

        async def wait(name, priority):
            await tools.collect(core, tools.request(vocabulary.prompt(8), 1, priority=priority))
            order.append(name)

        waiting = [asyncio.create_task(wait(*job)) for job in (("plain", 0), ("urgent", 5))]
        await tools.wait_until(lambda: _queued(core, tools, 2), 60)
        with pytest.raises(QueueFullError):
            await tools.collect(core, tools.request(vocabulary.prompt(8), 1))
        await first.aclose()
        await asyncio.gather(*waiting)
        await core.close()
        return order

    assert asyncio.run(main()) == ["urgent", "plain"]


async def _queued(core, tools, count):
    return await tools.stats_of(core) == (1, count)


def test_closing_the_core_ends_its_sequences(make_runtime, tools, vocabulary):
    """close() ends running sequences with ABORT; afterwards nothing is accepted."""

    async def main():
        core = LlamaCppCore(make_runtime(max_sequences=2, context_tokens=2048))
        deltas = await started(core, tools.request(vocabulary.prompt(8), ENDLESS))
        await core.close()
        last = [delta async for delta in deltas][-1]
        assert last.finish_reason is FinishReason.ABORT
        assert not await core.health()
        with pytest.raises(EngineUnavailableError):
            await tools.collect(core, tools.request(vocabulary.prompt(8), 1))

    asyncio.run(main())


@pytest.mark.one_checkpoint
def test_a_killed_engine_is_an_error_and_a_restarted_one_serves(start_process, tools, vocabulary):
    """Kill -9 in the middle of a stream gives EngineUnavailableError; the same client works with the next process."""

    async def main():
        process = start_process(context_tokens=LONG_CONTEXT)
        async with connected(process) as client:
            deltas = await started(client, tools.request(vocabulary.prompt(8), VERY_LONG))
            process.process.kill()
            with pytest.raises(EngineUnavailableError):
                _ = [delta async for delta in deltas]
            assert not await client.ready()
            assert Path(process.endpoint.removeprefix("unix:")).is_socket()  # the stale file of the killed process
            again = start_process()
            await again.wait_ready(client)
            return await tools.collect(client, tools.request(vocabulary.prompt(8), 4))

    assert len(asyncio.run(main()).token_ids) == 4


@pytest.mark.one_checkpoint
def test_a_loading_engine_is_live_but_refuses(start_process, tools, vocabulary, tmp_path):
    """Until the model is loaded the server is not ready, generation says why, and SIGTERM works."""
    endless = tmp_path / "model.gguf"
    os.mkfifo(endless)  # opening it for reading waits for a writer, as a slow disk would

    async def main():
        process = start_process(model_path=endless)
        # On a busy machine the process may need longer than a request usually waits for its server.
        client = EngineClient([process.endpoint], ConnectionOptions(connect_timeout_s=100))
        try:
            with pytest.raises(EngineUnavailableError, match="loading"):
                await tools.collect(client, tools.request(vocabulary.prompt(8), 1))
            with pytest.raises(EngineUnavailableError):
                await client.limits()
            assert not await client.ready()
        finally:
            await client.close()
        process.process.send_signal(signal.SIGTERM)
        return process.process.wait(100)

    assert asyncio.run(main()) == 0


@pytest.mark.one_checkpoint
def test_sigterm_stops_cleanly(start_process, tools, vocabulary):
    """SIGTERM ends the process with status 0 and removes its socket, even with a stream open."""

    async def main():
        process = start_process()
        async with connected(process) as client:
            deltas = await started(client, tools.request(vocabulary.prompt(8), ENDLESS))
            process.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(EngineError):
                _ = [delta async for delta in deltas]
        return process

    process = asyncio.run(main())
    assert process.process.wait(100) == 0
    assert not Path(process.endpoint.removeprefix("unix:")).exists()


@pytest.mark.one_checkpoint
def test_a_vanished_client_frees_its_slot(shared_process, tools, vocabulary, tmp_path):
    """When a client's process is killed, its sequences end."""
    script = tmp_path / "client.py"
    script.write_text(
        "import asyncio, sys\n"
        "from engine.core import EngineRequest\n"
        "from engine.triton.client import EngineClient\n"
        "async def main():\n"
        "    client = EngineClient([sys.argv[1]])\n"
        f"    request = EngineRequest('r', {vocabulary.prompt(8)!r}, {ENDLESS}, ignore_stop_ids=True)\n"
        "    async for _ in client.generate(request):\n"
        "        sys.stdout.write('x')\n"
        "        sys.stdout.flush()\n"
        "asyncio.run(main())\n",
        encoding="utf-8",
    )

    async def main():
        async with connected(shared_process) as client:
            await tools.wait_until(is_idle(client, tools), 60)
            child = subprocess.Popen([sys.executable, str(script), shared_process.endpoint], stdout=subprocess.PIPE)
            assert child.stdout is not None
            assert child.stdout.read(1) == b"x"
            child.kill()
            child.wait(100)
            child.stdout.close()
            begun = time.perf_counter()
            await tools.wait_until(is_idle(client, tools), 60)
            return time.perf_counter() - begun

    assert best(lambda: asyncio.run(main()), below=0.5) < 0.5


@pytest.mark.one_checkpoint
def test_the_engine_dies_with_its_parent(make_runtime, tmp_path, tools):
    """An engine whose parent is killed does not stay behind."""
    runtime = tmp_path / "runtime.json"
    port = free_port()
    runtime.write_text(make_runtime(endpoint=f"127.0.0.1:{port}").model_dump_json(), encoding="utf-8")
    parent_script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'engine', '--runtime', {str(runtime)!r}])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    engine_pid = int(parent.stdout.readline())

    async def main():
        client = EngineClient([f"127.0.0.1:{port}"])
        try:
            await tools.wait_until(client.ready, 60)
        finally:
            await client.close()
        parent.kill()
        parent.wait(100)
        await tools.wait_until(lambda: _is_gone(engine_pid), 60)

    asyncio.run(main())
    parent.stdout.close()


async def _is_gone(pid):
    return not is_running(pid)
