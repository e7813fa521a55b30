"""The engine process around the core: a lost library ends it, so that the launcher starts it again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engine.errors import EngineUnavailableError
from engine.triton.client import EngineClient

STAND_IN = (sys.executable, "-m", "tests.fakes.tensorrt_llm_process")
DEADLINE_S = 60.0


@pytest.fixture
def process(runtime_of):
    """An engine process whose library is lost after five responses, and its address."""
    # Socket paths are limited to 107 bytes, which pytest's own folders may exceed.
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        runtime = runtime_of(endpoint=f"unix:{name}/l.sock")
        path = Path(name) / "runtime.json"
        path.write_text(runtime.model_dump_json(), encoding="utf-8")
        command = [*STAND_IN, "--die-after", "5", "--runtime", str(path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as started:
            yield started, runtime.endpoint
            started.kill()


@pytest.mark.slow
def test_a_process_whose_library_is_lost_ends(process, tools, prompt):
    """Its sequences fail, and it exits with status 1 and one line that says why."""
    started, endpoint = process

    async def main():
        client = EngineClient([endpoint])
        try:
            await tools.wait_until(client.ready, DEADLINE_S)
            assert len((await tools.collect(client, tools.request(prompt(8), 3))).token_ids) == 3
            with pytest.raises(EngineUnavailableError):
                await tools.collect(client, tools.request(prompt(8), 100))
        finally:
            await client.close()

    asyncio.run(main())
    _, errors = started.communicate(timeout=DEADLINE_S)
    assert started.returncode == 1
    assert errors.splitlines()[-1] == "engine: the core has stopped working"
