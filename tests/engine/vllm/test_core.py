"""The vLLM core itself, and what becomes of vLLM's processes; needs ``--vllm-python``, see ``make test-vllm``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from engine.triton.client import EngineClient

PROBE = Path(__file__).with_name("core_probe.py")
LOAD_TIMEOUT_S = 600


@pytest.fixture
def probe(vllm_python, vllm_runtime, tmp_path):
    """Return a function that runs steps of ``core_probe.py`` and returns what they saw."""

    def run(*steps: str):
        runtime = tmp_path / "runtime.json"
        runtime.write_text(vllm_runtime(max_sequences=1, max_queued=2).model_dump_json(), encoding="utf-8")
        command = (str(vllm_python), str(PROBE), str(runtime), *steps)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOAD_TIMEOUT_S)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


def test_statistics_aborts_queue_and_close(probe):
    """Waiting and memory are counted; aborts take under 50 ms; the queue has a limit and an order; close ends all."""
    facts = probe("statistics", "aborts", "queue", "close")
    counted = facts["statistics"]
    assert 0 < counted["taken"][0] < counted["places"]
    assert counted["taken"][1] == 0
    assert (counted["started"], counted["cached"], counted["preemptions"]) == (3, True, 0)
    assert counted["queue_us"] > 0
    assert facts["aborts"]["seconds"] < 0.05
    assert facts["aborts"]["reason"] == facts["aborts"]["early"] == "abort"
    assert facts["aborts"]["drawn"] >= 1
    assert facts["queue"] == {"order": ["urgent", "plain"], "fourth": "queue_full"}
    assert facts["close"] == {"running": "abort", "after": "engine_unavailable", "healthy": False}


def test_a_crash_of_vllms_process_is_noticed(probe):
    """Sequences fail with the error for a lost engine, and the core is not healthy any more."""
    assert probe("crash") == {"crash": {"running": "engine_unavailable", "after": "engine_unavailable"}}


def processes_under(pid: int) -> set[int]:
    """Return a process's children and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        children = (task / "children").read_text(encoding="utf-8").split()
        for child in map(int, children):
            found |= {child, *processes_under(child)}
    return found


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_vllms_processes_end_with_a_killed_engine(vllm_python, vllm_runtime, tools):
    """Kill -9 of our process leaves none of vLLM's behind to hold the GPU's memory."""
    below: set[int] = set()

    async def gone() -> bool:
        return all(is_gone(pid) for pid in below)

    async def main(process: subprocess.Popen[bytes], endpoint: str) -> None:
        client = EngineClient([endpoint])
        try:
            await tools.wait_until(client.ready, LOAD_TIMEOUT_S)
        finally:
            await client.close()
        below.update(processes_under(process.pid))
        process.kill()
        process.wait()
        assert len(below) >= 2
        await tools.wait_until(gone, 60)

    # Socket paths are limited to 107 bytes, which pytest's own folders may exceed.
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        runtime = Path(name) / "runtime.json"
        endpoint = f"unix:{name}/e.sock"
        runtime.write_text(vllm_runtime(endpoint=endpoint).model_dump_json(), encoding="utf-8")
        command = [str(vllm_python), "-m", "engine", "--runtime", str(runtime)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            asyncio.run(main(process, endpoint))
        finally:
            process.kill()
            process.wait()
