"""One engine over several machines: where a process stands, and two processes that stand for two machines.

The last tests need ``--vllm-python``, see ``make test-vllm``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.runtime import EngineCluster, EngineRuntime
from engine.core import EngineRequest, Sampling
from engine.errors import EngineError
from engine.llama_cpp.core import LlamaCppCore
from engine.nodes import add_options, beside_workers, is_worker, placed
from engine.triton.client import EngineClient
from engine.vllm.arguments import engine_arguments
from engine.vllm.contract_check import vllm_contract
from tests.fakes.processes import free_port

LOAD_TIMEOUT_S = 600
END_TIMEOUT_S = 120
QUESTION = EngineRequest("question", (2, 300, 301, 302, 310), 24, sampling=Sampling(temperature=0.0))


def options(*words: str) -> argparse.Namespace:
    """Read a command line as the engine process does."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def test_a_process_is_told_its_place(vllm_runtime: Callable[..., EngineRuntime]) -> None:
    """All machines share one file, and the command line says which of them this is; vLLM gets it in its own terms."""
    runtime = vllm_runtime(tensor_parallel=4)
    first = placed(runtime, options("--nodes", "2", "--leader", "a.b:29500"))
    second = placed(runtime, options("--nodes", "2", "--node-rank", "1", "--leader", "a.b:29500"))
    arguments = engine_arguments(second, on_cpu=False)

    assert placed(runtime, options()) == runtime
    assert [is_worker(one) for one in (runtime, first, second)] == [False, False, True]
    assert (arguments["nnodes"], arguments["node_rank"], arguments["tensor_parallel_size"]) == (2, 1, 4)
    assert (arguments["master_addr"], arguments["master_port"]) == ("a.b", 29500)
    assert "nnodes" not in engine_arguments(runtime, on_cpu=False)
    (entry,) = [entry for entry in vllm_contract().entries if entry.class_name == "AsyncEngineArgs"]
    assert set(arguments) <= set(entry.parameters)


@pytest.mark.parametrize(
    ("words", "changes", "says"),
    [
        ("--nodes 2 --node-rank 2 --leader a:1", {}, "rank 2 is none of 2 nodes"),
        ("--nodes 2", {}, "leader"),
        ("--nodes 2 --leader host", {}, "leader"),
        ("--nodes 2 --leader host:65535", {}, "no such port, or none after it"),
        ("--node-rank 1 --leader a:1", {}, "nodes"),
        ("--nodes 3 --leader a:1", {}, "tensor_parallel 4 cannot be shared evenly by 3 nodes"),
        ("--nodes 2 --leader a:1", {"core": "tensorrt_llm"}, "only vllm can use several"),
    ],
)
def test_a_place_that_does_not_exist_is_refused(
    vllm_runtime: Callable[..., EngineRuntime], words: str, changes: dict[str, str], says: str
) -> None:
    """The message names what is wrong."""
    runtime = vllm_runtime(**{"tensor_parallel": 4} | changes)
    with pytest.raises(ValueError, match=says):
        placed(runtime, options(*words.split()))


def cluster_at(port: int) -> EngineCluster:
    """Return the place of a leader of two."""
    return EngineCluster(nodes=2, rank=0, leader=f"127.0.0.1:{port}")


def free_ports() -> int:
    """Return a free port whose next one is free, too."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            try:
                probe.bind(("", port + 1))
            except OSError:
                continue
            return port


async def connected(port: int) -> asyncio.StreamWriter:
    """Connect once the leader listens."""
    async with asyncio.timeout(END_TIMEOUT_S):
        while True:
            try:
                return (await asyncio.open_connection("127.0.0.1", port))[1]
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)


def test_a_leader_ends_when_a_worker_has_gone() -> None:
    """The connection of one that has told its rank counts; a stranger who looks in and leaves does not."""
    cluster = cluster_at(free_ports())

    async def main() -> None:
        leader = asyncio.ensure_future(beside_workers(asyncio.sleep(END_TIMEOUT_S * 2), cluster))
        stranger = await connected(cluster.watch_port)
        worker = await connected(cluster.watch_port)
        worker.write(b"1\n")
        stranger.write(b"GET /" + b"x" * 100_000)
        stranger.close()
        # The leader reads no more of this than it must, and may break the connection off first.
        with contextlib.suppress(OSError):
            await stranger.wait_closed()
        assert not leader.done()
        worker.close()
        with pytest.raises(EngineError, match="node 1 of 2 has ended"):
            await asyncio.wait_for(leader, END_TIMEOUT_S)

    asyncio.run(main())


def test_a_leader_without_its_port_says_so() -> None:
    """Another process may have it."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        cluster = cluster_at(taken.getsockname()[1] - 1)
        with pytest.raises(EngineError, match=f"port {cluster.watch_port}"):
            asyncio.run(beside_workers(asyncio.sleep(END_TIMEOUT_S), cluster))


@dataclass
class Pair:
    """Two processes that share one engine."""

    endpoint: str
    leader: subprocess.Popen[str]
    worker: subprocess.Popen[str]

    async def answer(self) -> list[int]:
        """Return what the leader draws for the question."""
        client = EngineClient([self.endpoint])
        try:
            return [token for delta in [d async for d in client.generate(QUESTION)] for token in delta.token_ids]
        finally:
            await client.close()


@pytest.fixture
def pair(vllm_python: Path, vllm_runtime: Callable[..., EngineRuntime], tmp_path: Path, tools: Any) -> Iterator[Pair]:
    """Start both and wait until the leader can generate."""
    endpoint = f"unix:{tmp_path}/e.sock"
    runtime = tmp_path / "runtime.json"
    runtime.write_text(vllm_runtime(endpoint=endpoint, tensor_parallel=2).model_dump_json(), encoding="utf-8")
    place = ("--nodes", "2", "--leader", f"127.0.0.1:{free_ports()}")

    def start(rank: int) -> subprocess.Popen[str]:
        command = (str(vllm_python), "-m", "engine", "--runtime", str(runtime), *place, "--node-rank", str(rank))
        with (tmp_path / f"errors{rank}").open("w") as errors:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, text=True)

    async def loaded() -> None:
        client = EngineClient([endpoint])
        try:
            await tools.wait_until(client.ready, LOAD_TIMEOUT_S)
        finally:
            await client.close()

    both = Pair(endpoint, start(0), start(1))
    try:
        asyncio.run(loaded())
        yield both
    finally:
        for process in (both.leader, both.worker):
            process.kill()
            process.wait()


def errors_of(folder: Path, rank: int) -> str:
    """Return what one of the two processes wrote."""
    return (folder / f"errors{rank}").read_text(encoding="utf-8")


def test_two_processes_answer_like_one(pair: Pair, vllm_runtime: Callable[..., EngineRuntime], tmp_path: Path) -> None:
    """Half of every layer is computed elsewhere, and the answer is that of another engine; the worker goes with it."""
    checkpoint = vllm_runtime().checkpoint_path
    assert checkpoint is not None
    model = checkpoint / "model.gguf"
    other = LlamaCppCore(vllm_runtime().model_copy(update={"core": "llama_cpp", "model_path": model}))

    async def expected() -> list[int]:
        try:
            return [token for delta in [d async for d in other.generate(QUESTION)] for token in delta.token_ids]
        finally:
            await other.close()

    assert asyncio.run(pair.answer()) == asyncio.run(expected())

    pair.leader.send_signal(signal.SIGKILL)
    assert pair.worker.wait(END_TIMEOUT_S) == 1
    assert "has ended" in errors_of(tmp_path, 1)


def test_the_leader_does_not_go_on_without_its_worker(pair: Pair, tmp_path: Path) -> None:
    """A worker stops on SIGTERM, and a leader that misses it ends, so that whoever watches starts both again."""
    pair.worker.terminate()
    assert pair.worker.wait(END_TIMEOUT_S) == 0
    assert pair.leader.wait(END_TIMEOUT_S) == 1
    assert "node 1 of 2 has ended" in errors_of(tmp_path, 0)
