# ruff: noqa: ASYNC220 - blocking for a moment is fine in a test
"""The real ``tritonserver``: many streams, cancels, slow readers, deaths of every process, and what it tells of itself.

The conformance tests of ``tests/engine`` run through it as well. All of these are skipped where it is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import grpc
import pytest

from engine.core import FinishReason
from engine.errors import EngineError, EngineUnavailableError, InvalidRequestError
from engine.tensors import input_writer
from engine.triton.client import EngineClient
from engine.triton.protocol import GRPCInferenceServiceStub, service_pb2
from engine.triton.server_process import segment_prefix
from engine.wire import decode_delta, encode_request
from tests.fakes.measuring import best
from tests.fakes.processes import children_of, free_port, is_running, wait_until

pytestmark = pytest.mark.slow
ENDLESS = 1900
"""More ids than are drawn before the test is over."""
LONG_CONTEXT = 8192
VERY_LONG = 8000
"""The same where nothing may come to its end, though this process be held up for seconds."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps it
SCRIPT = Path(__file__).parents[3] / "docs" / "examples" / "triton_client.py"


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
    async def check():
        return await tools.stats_of(engine) == (0, 0)

    return check


async def gone(*pids):
    return not any(is_running(pid) for pid in pids)


def segments(process):
    """Return what a server has in shared memory; others run beside it."""
    return {path.name for path in SHARED_MEMORY.glob(f"{segment_prefix(process.endpoint)}*")}


def test_many_streams_at_once(start_process, triton_program, shared_core, tools, vocabulary):
    """64 greedy sequences side by side end as the same ones do in the core, whatever was joined on the way."""
    prompts = [vocabulary.prompt(12, seed) for seed in range(64)]

    async def main():
        process = start_process(triton_program, max_sequences=64, context_tokens=512)
        async with connected(process) as client:
            wanted = [tools.request(prompt, 40, ignore_stop_ids=True) for prompt in prompts]
            results = await asyncio.gather(*(tools.collect(client, one) for one in wanted))
            await tools.wait_until(is_idle(client, tools), 60)
            return results, (await client.stats()).completion_tokens_total

    results, counted = asyncio.run(main())
    assert [len(result.token_ids) for result in results] == [40] * 64
    assert all(result.usage.completion_tokens == 40 for result in results)
    assert counted == 64 * 40
    alone = asyncio.run(tools.collect(shared_core, tools.request(prompts[0], 40, ignore_stop_ids=True)))
    # Beside others, rounding may let an almost even choice fall the other way, but not at the first id.
    assert results[0].token_ids[0] == alone.token_ids[0]


def test_a_cancel_ends_the_sequence_within_50_ms(shared_triton, tools, vocabulary):
    """A client that closes its RPC frees its slot in the core; the time holds the questions for it, too."""

    async def main():
        async with connected(shared_triton) as client:
            await tools.wait_until(is_idle(client, tools), 60)
            deltas = await started(client, tools.request(vocabulary.prompt(8), ENDLESS, ignore_stop_ids=True))
            assert (await tools.stats_of(client))[0] == 1
            begun = time.perf_counter()
            await deltas.aclose()
            await tools.wait_until(is_idle(client, tools), 60)
            return time.perf_counter() - begun

    assert best(lambda: asyncio.run(main()), below=0.05) < 0.05


@pytest.mark.one_checkpoint
def test_a_vanished_client_frees_its_slot(shared_triton, tools, vocabulary, tmp_path):
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
        async with connected(shared_triton) as client:
            await tools.wait_until(is_idle(client, tools), 60)
            with subprocess.Popen(
                [sys.executable, str(script), shared_triton.endpoint], stdout=subprocess.PIPE
            ) as child:
                assert child.stdout is not None
                assert child.stdout.read(1) == b"x"
                child.kill()
            begun = time.perf_counter()
            await tools.wait_until(is_idle(client, tools), 60)
            return time.perf_counter() - begun

    assert best(lambda: asyncio.run(main()), below=0.5) < 0.5


def test_a_slow_reader_holds_nobody_up(shared_triton, tools, vocabulary):
    """A client that does not read keeps neither the step nor other clients waiting, and finds everything later."""
    slow = tools.request(vocabulary.prompt(8), 1500, ignore_stop_ids=True)

    async def main():
        async with connected(shared_triton) as client, grpc.aio.insecure_channel(shared_triton.endpoint) as channel:
            call = GRPCInferenceServiceStub(channel).ModelStreamInfer()
            await call.write(encode_request(slow))
            await call.done_writing()
            other = await tools.collect(client, tools.request(vocabulary.prompt(8, 3), 200, ignore_stop_ids=True))
            # The core has drawn all 1,500 ids of the slow reader while it read none.
            await tools.wait_until(is_idle(client, tools), 60)
            ids, responses = [], 0
            while (message := await call.read()) is not grpc.aio.EOF:
                ids += decode_delta(message).token_ids
                responses += 1
            return other, ids, responses

    other, ids, responses = asyncio.run(main())
    assert len(other.token_ids) == 200
    assert len(ids) == 1500
    assert responses <= 1500


@pytest.mark.one_checkpoint
def test_a_killed_server_is_an_error_and_a_restarted_one_serves(start_process, triton_program, tools, vocabulary):
    """Kill -9 of tritonserver: the stream fails, every process ends, nothing is left, the next one serves."""

    async def main():
        process = start_process(triton_program, context_tokens=LONG_CONTEXT)
        async with connected(process) as client:
            deltas = await started(client, tools.request(vocabulary.prompt(8), VERY_LONG, ignore_stop_ids=True))
            (server,) = children_of(process.process.pid)
            model = children_of(server)
            os.kill(server, signal.SIGKILL)
            with pytest.raises(EngineUnavailableError):
                _ = [delta async for delta in deltas]
            assert not await client.ready()
            await tools.wait_until(lambda: gone(process.process.pid, server, *model), 60)
            assert process.process.wait(100) == 1
            assert "tritonserver has ended with status -9" in process.errors()
            assert segments(process) == set()
            again = start_process(triton_program)
            await again.wait_ready(client)
            return await tools.collect(client, tools.request(vocabulary.prompt(8), 4))

    assert len(asyncio.run(main()).token_ids) == 4


@pytest.mark.one_checkpoint
def test_a_killed_model_ends_the_engine(start_process, triton_program, tools, vocabulary):
    """Triton would go on calling the model ready; the engine process ends instead, and says why."""

    async def main():
        process = start_process(triton_program, context_tokens=LONG_CONTEXT)
        async with connected(process) as client:
            deltas = await started(client, tools.request(vocabulary.prompt(8), VERY_LONG, ignore_stop_ids=True))
            (server,) = children_of(process.process.pid)
            (model,) = children_of(server)
            os.kill(model, signal.SIGKILL)
            with pytest.raises(EngineError):
                _ = [delta async for delta in deltas]
            await tools.wait_until(lambda: gone(process.process.pid, server), 60)
            return process.process.wait(100), process.errors()

    status, words = asyncio.run(main())
    assert status == 1
    # Rarely the server cannot bear its model's death and dies as well, before it is known here which was first.
    assert "the process that runs the model has died" in words or "tritonserver has ended with status -" in words


@pytest.mark.one_checkpoint
def test_a_killed_engine_process_leaves_nothing_running(start_process, triton_program, tools):
    """Kill -9 of the outermost process takes Triton and the model along; the next start clears shared memory."""

    async def main():
        process = start_process(triton_program)
        async with connected(process):
            (server,) = children_of(process.process.pid)
            model = children_of(server)
            process.process.kill()
            await tools.wait_until(lambda: gone(server, *model), 60)
        again = start_process(triton_program)
        async with connected(again):
            assert len(segments(again)) == 1
        assert again.stop() == 0
        return segments(again)

    assert asyncio.run(main()) == set()


@pytest.mark.one_checkpoint
def test_sigterm_stops_cleanly(start_process, triton_program, tools, vocabulary):
    """SIGTERM ends everything with status 0, even with a stream open, and removes socket and shared memory."""

    async def main():
        process = start_process(triton_program)
        async with connected(process) as client:
            deltas = await started(client, tools.request(vocabulary.prompt(8), ENDLESS, ignore_stop_ids=True))
            process.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(EngineError):
                _ = [delta async for delta in deltas]
        return process

    process = asyncio.run(main())
    assert process.process.wait(100) == 0
    folder = Path(process.endpoint.removeprefix("unix:")).parent
    assert not [path for path in folder.iterdir() if path.name.startswith("e.sock")]
    assert segments(process) == set()


@pytest.mark.one_checkpoint
@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_a_model_that_cannot_be_loaded_is_one_line(start_process, triton_program, tmp_path, what):
    """The process ends with status 1; the reason is the core's own, without tables and traces."""
    path = tmp_path / "model.gguf"
    if what == "damaged":
        path.write_bytes(b"GGUF" + bytes(64))
    process = start_process(triton_program, model_path=path)
    assert process.process.wait(100) == 1
    last = process.errors().strip().splitlines()[-1]
    assert last.startswith("engine: ")
    assert str(path) in last
    assert "\\n" not in last


@pytest.mark.one_checkpoint
def test_a_taken_port_is_told(start_process, triton_program):
    """An address that cannot be had is an error with Triton's reason."""
    with grpc_port() as port:
        process = start_process(triton_program, endpoint=f"127.0.0.1:{port}")
        assert process.process.wait(100) == 1
        assert str(port) in process.errors().strip().splitlines()[-1]


def test_a_core_that_stops_working_ends_the_server(triton_program):
    """Triton calls a model ready that was loaded once, so the model ends the server when its core is sick."""
    model = """
from benchmarks.scripted_engine import SteppedCore
from engine.triton import model

class SickCore(SteppedCore):
    async def health(self):
        return False

model.load_core = lambda runtime: SickCore((1,), 0.01)
TritonPythonModel = model.TritonPythonModel
"""
    script = f"""
import asyncio
from pathlib import Path
from config.runtime import EngineRuntime
from engine.triton import server_process

class Server(server_process.TritonServer):
    def write_models(self):
        super().write_models()
        (self._folder / "models" / "gemma4" / "1" / "model.py").write_text({model!r})

server_process.TritonServer = Server
nowhere = Path("/nowhere")
runtime = EngineRuntime(
    model_path=nowhere, tokenizer_path=nowhere, endpoint="127.0.0.1:{free_port()}", context_tokens=1
)
asyncio.run(server_process.serve(runtime, server_process.Listeners()))
"""
    done = subprocess.run([triton_program[0], "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert "the core has stopped working" in done.stderr
    assert "EngineError: tritonserver has ended" in done.stderr


@contextlib.contextmanager
def grpc_port():
    """Hold a port of this machine."""
    import socket  # noqa: PLC0415 - one test's

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def open_triton(start_process, triton_program):
    """Return an engine in Triton at TCP ports: gRPC, HTTP, metrics."""
    ports = [free_port() for _ in range(3)]
    command = [*triton_program, "--http", f"127.0.0.1:{ports[1]}", "--metrics", f"127.0.0.1:{ports[2]}"]
    process = start_process(command, endpoint=f"127.0.0.1:{ports[0]}")

    async def wait():
        async with connected(process):
            pass

    asyncio.run(wait())
    return process, *ports


def fetch(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


def test_triton_tells_of_the_engine_in_its_own_places(open_triton, tools, vocabulary):
    """Health, metadata and configuration over HTTP; the engine's counters among Triton's metrics."""
    process, _, http, metrics = open_triton

    async def main():
        async with connected(process) as client:
            await tools.collect(client, tools.request(vocabulary.prompt(10), 20, ignore_stop_ids=True))

    asyncio.run(main())
    assert fetch(http, "/v2/health/ready") == ""
    assert fetch(http, "/v2/models/gemma4/ready") == ""
    metadata = json.loads(fetch(http, "/v2/models/gemma4"))
    assert {"input_ids", "guided_decoding_guide"} <= {entry["name"] for entry in metadata["inputs"]}
    config = json.loads(fetch(http, "/v2/models/gemma4/config"))
    assert config["parameters"]["max_sequences"]["string_value"] == "32"
    statistics = json.loads(fetch(http, "/v2/models/gemma4/stats"))["model_stats"][0]
    assert statistics["inference_stats"]["success"]["count"] >= 1
    told = {"completion_tokens_total": 20, "prompt_tokens_total": 10, "running_sequences": 0}
    lines = [f'gemma4_{name}{{model="gemma4"}} {value}\n' for name, value in told.items()]

    def are_shown():
        shown = fetch(metrics, "/metrics")
        return all(line in shown for line in lines)

    # They are told once a second, one after the other: a page may be from before the end, or from between two of them.
    wait_until(are_shown, what="the counts of the finished sequence")


def test_a_malformed_request_is_refused_with_its_reason(shared_triton):
    """What is missing is named by the model, what is unknown by Triton; the model goes on."""

    async def ask(stub, write):
        message = service_pb2.ModelInferRequest(model_name="gemma4", id="bad")
        write(input_writer(message))
        call = stub.ModelStreamInfer()
        await call.write(message)
        await call.done_writing()
        answer = await call.read()
        call.cancel()
        with pytest.raises(EngineError) as caught:
            decode_delta(answer)
        return caught.value

    async def main():
        async with connected(shared_triton), grpc.aio.insecure_channel(shared_triton.endpoint) as channel:
            stub = GRPCInferenceServiceStub(channel)
            missing = await ask(stub, lambda writer: writer.numbers("input_ids", "INT32", (1,)))
            assert isinstance(missing, InvalidRequestError)
            assert "request_output_len" in missing.message
            unknown = await ask(stub, lambda writer: writer.numbers("temprature", "FP32", (1.0,)))
            assert "temprature" in unknown.message
            wrong = await ask(stub, lambda writer: writer.numbers("input_ids", "FP32", (1.0,)))
            assert "input_ids" in wrong.message
        async with connected(shared_triton) as client:
            assert await client.ready()

    asyncio.run(main())


def test_the_documented_script_runs(open_triton, model_dir):
    """The plain tritonclient script beside the documents works with this checkpoint's tokenizer."""
    process, *_ = open_triton
    done = subprocess.run(
        [sys.executable, str(SCRIPT), process.endpoint, str(model_dir / "tokenizer.json")],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith((FinishReason.STOP.value, FinishReason.LENGTH.value))
