"""LoRA adapters on a real vLLM: random ones for the demo model against the same weights merged into it.

Needs ``--vllm-python``, see ``make test-vllm``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import requests

from config.runtime import AdapterRuntime
from engine.core import EngineRequest, Sampling
from engine.errors import UnknownAdapterError
from engine.triton.client import EngineClient
from tests.fakes.adapters import adapter_tensors, merge_adapter, write_adapter
from tests.fakes.processes import ServerProcess, free_port, wait_until

DEMO = Path(__file__).parents[3] / "demo" / "checkpoints" / "demo-moe"
MODEL = "demo-moe"
PROMPTS = [(2, *(300 + 37 * place % 1000 for place in range(length))) for length in (20, 75)]
RIVALS = 20
TOKENS, LONG = 12, 900
SMALL, LARGE = 0.01, 0.1
"""Rounding moves log-probabilities by less, another adapter by more."""
START_S, PATIENCE_S = 600, 120


def request(
    name: str, prompt: tuple[int, ...], adapter: str | None, tokens: int = TOKENS, salt: str = ""
) -> EngineRequest:
    sampling = Sampling(temperature=0.0)
    return EngineRequest(name, prompt, tokens, sampling=sampling, logprobs=RIVALS, adapter=adapter, cache_salt=salt)


async def answer(client: EngineClient, prompt: tuple[int, ...], adapter: str | None = None, salt: str = ""):
    """Return ids, the most likely ones with their log-probabilities, and how much of the prompt the cache held."""
    ids, logged, cached = [], [], 0
    async for delta in client.generate(request(f"{adapter}-{len(prompt)}", prompt, adapter, salt=salt)):
        ids += delta.token_ids
        logged += [dict(entry.top) for entry in delta.logprobs]
        cached = delta.usage.cached_tokens if delta.usage else cached
    return ids, logged, cached


async def until(client: EngineClient, *names: str) -> None:
    """Wait until just these adapters are served."""
    async with asyncio.timeout(PATIENCE_S):
        while await client.adapters() != names:
            await asyncio.sleep(0.05)


def distance(one, other) -> float:
    """Return how far apart the probabilities of two answers are, as far as the same ids were drawn.

    It is the largest difference of two log-probabilities of an id that is among the most likely in both answers.
    """
    same = next((place for place, pair in enumerate(zip(one[0], other[0], strict=True)) if len(set(pair)) > 1), TOKENS)
    both = list(zip(one[1], other[1], strict=True))[: same + 1]
    return max(abs(mine[key] - yours[key]) for mine, yours in both for key in mine.keys() & yours.keys())


def is_close(one, other) -> bool:
    """Tell whether two answers are the same but for rounding, not merely alike."""
    apart = distance(one, other)
    assert apart < SMALL or apart > LARGE, apart
    return apart < SMALL and one[0] == other[0]


@contextlib.contextmanager
def engine(start, python: Path, **fields):
    """Run an engine process on vLLM and yield it; it is given to a test by its address."""
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        process = start(Path(name), python, **fields)
        try:
            yield process
        finally:
            process.stop()


@pytest.fixture(scope="module")
def start(vllm_runtime, engine_process):
    def start_one(folder: Path, python: Path, **fields):
        runtime = vllm_runtime(endpoint=f"unix:{folder}/e.sock", max_sequences=8, **fields)
        return engine_process(runtime, folder, [str(python), "-m", "engine"])

    return start_one


def with_client(process, body):
    """Run a coroutine with a client of an engine that is ready."""

    async def main():
        client = EngineClient([process.endpoint])
        try:
            await process.wait_ready(client)
            return await body(client)
        finally:
            await client.close()

    return asyncio.run(main())


@pytest.fixture(scope="module")
def tensors():
    return {name: adapter_tensors(DEMO, seed) for seed, name in enumerate(("poet", "lawyer", "late"))}


@pytest.fixture(scope="module")
def source(tmp_path_factory, tensors):
    """Return a folder with two adapters, and some that cannot be served."""
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("poet", "lawyer"):
        write_adapter(folder / name, tensors[name])
    write_adapter(folder / "large", adapter_tensors(DEMO, 7, rank=9), r=9)
    write_adapter(folder / "other", {name: values[:, :-1] for name, values in tensors["poet"].items()})
    write_adapter(folder / MODEL, tensors["poet"])
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(autouse=True)
def restored(source, tensors):
    """Leave the folder as it was; the tests come in any order."""
    yield
    for name in ("late", "api"):
        shutil.rmtree(source / name, ignore_errors=True)
    if not (source / "poet").exists():
        write_adapter(source / ".poet", tensors["poet"]).rename(source / "poet")


@pytest.fixture(scope="module")
def adapted(vllm_python, start, source):
    """Start an engine with the adapters of the folder."""
    adapters = AdapterRuntime(source=source, refresh_s=0.5, max_rank=8, max_gpu=2, max_cpu=2, reserved_names=(MODEL,))
    with engine(start, vllm_python, adapters=adapters) as process:
        yield process


@pytest.fixture(scope="module")
def merged_answers(vllm_python, start, tensors, tmp_path_factory):
    """Return the answers of an engine without adapters whose weights have one of them merged in."""
    place = tmp_path_factory.mktemp("merged")
    folder = merge_adapter(DEMO, write_adapter(place / "poet", tensors["poet"]), place / "checkpoint")

    async def body(client):
        return [await answer(client, prompt) for prompt in PROMPTS]

    with engine(start, vllm_python, checkpoint_path=folder) as process:
        return with_client(process, body)


def test_adapters_answer_as_if_they_were_merged(adapted, merged_answers):
    """Alone, and in one batch with the model itself and another adapter; nobody's prefixes are taken for another's."""

    async def body(client):
        await until(client, "lawyer", "poet")
        # What other tests have left in the cache is not found.
        salt = "merged"
        alone = {name: [await answer(client, p, name, salt) for p in PROMPTS] for name in (None, "poet", "lawyer")}
        jobs = [(name, prompt) for name in (None, "poet", "lawyer", None) for prompt in PROMPTS]
        together = await asyncio.gather(*(answer(client, prompt, name, salt) for name, prompt in jobs))
        return alone, list(zip(jobs, together, strict=True))

    alone, together = with_client(adapted, body)
    for place in range(len(PROMPTS)):
        assert is_close(alone["poet"][place], merged_answers[place])
        assert not is_close(alone["poet"][place], alone[None][place])
        assert not is_close(alone["lawyer"][place], alone[None][place])
        assert not is_close(alone["lawyer"][place], alone["poet"][place])
        # Nothing that another one has computed was found; what it has computed itself is.
        assert {name: alone[name][place][2] for name in alone} == {None: 0, "poet": 0, "lawyer": 0}
    for (name, prompt), got in together:
        assert is_close(got, alone[name][PROMPTS.index(prompt)]), name
    assert any(got[2] > 0 for _, got in together)


def test_broken_adapters_are_named_and_left_out(adapted):
    """Each has one line in the engine's log; the others are served."""
    with_client(adapted, lambda client: client.limits())
    lines = [line for line in adapted.errors().splitlines() if "is left out" in line]
    for name, reason in (
        ("large", "adapter_config.json: the rank is 9; NIM_MAX_LORA_RANK allows 8"),
        ("other", "adapter_model.safetensors: lora_A of layers."),
        (MODEL, "it has a name of the model itself"),
        ("empty", "adapter_config.json cannot be read: No such file or directory"),
    ):
        assert [line for line in lines if f"/{name} is left out: {reason}" in line][1:] == []
        assert any(f"/{name} is left out: {reason}" in line for line in lines), name


def test_adapters_come_change_and_go(adapted, source, tensors):
    """The next look finds them; more than fit at the same time take turns; one that has gone is unknown."""

    async def body(client):
        await until(client, "lawyer", "poet")
        running = client.generate(request("running", PROMPTS[0], "poet", LONG))
        first = await anext(running)
        write_adapter(source / ".late", tensors["late"]).rename(source / "late")
        await until(client, "late", "lawyer", "poet")
        names = ("late", "lawyer", "poet", None)
        three = await asyncio.gather(*(answer(client, PROMPTS[1], name) for name in names))
        shutil.rmtree(source / "poet")
        await until(client, "late", "lawyer")
        rest = [delta async for delta in running]
        with pytest.raises(UnknownAdapterError, match="`poet` does not exist"):
            await answer(client, PROMPTS[0], "poet")
        before = await answer(client, PROMPTS[1], "late")
        shutil.rmtree(source / "late")
        await until(client, "lawyer")
        write_adapter(source / ".late", tensors["lawyer"]).rename(source / "late")
        await until(client, "late", "lawyer")
        changed, same = await answer(client, PROMPTS[1], "late"), await answer(client, PROMPTS[1], "lawyer")
        return first, rest, three, before, changed, same

    first, rest, three, before, changed, same = with_client(adapted, body)
    assert first.token_ids
    assert rest[-1].usage.completion_tokens == LONG
    assert all(not is_close(one, other) for place, one in enumerate(three) for other in three[:place])
    assert is_close(before, three[0])
    assert is_close(changed, same)


def test_clients_see_it_all(adapted, source, tensors, tmp_path):
    """``/v1/models`` lists them, ``model`` chooses, the answer names it, and one that has gone is a 404."""
    write_adapter(source / ".api", tensors["late"]).rename(source / "api")
    record = {"engine_endpoints": [adapted.endpoint], "tokenizer_path": str(DEMO / "tokenizer.json")}
    record |= {"served_names": [MODEL], "created": 0, "adapters": True}
    (tmp_path / "api.json").write_text(json.dumps(record))
    command = [sys.executable, "-m", "api", "--runtime", str(tmp_path / "api.json")]
    with ServerProcess(command, free_port(), tmp_path / "api.log", {}) as server:

        def names() -> list[str]:
            models = requests.get(f"{server.base_url}/v1/models", timeout=30).json()["data"]
            return [model["id"] for model in models]

        def ask(model: str) -> requests.Response:
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
            return requests.post(f"{server.base_url}/v1/chat/completions", json=body, timeout=60)

        wait_until(lambda: "api" in names(), deadline_s=PATIENCE_S, what="the adapter listed")
        assert names()[0] == MODEL
        assert [(ask(model).status_code, ask(model).json()["model"]) for model in ("api", MODEL)] == [
            (200, "api"),
            (200, MODEL),
        ]
        shutil.rmtree(source / "api")
        wait_until(lambda: "api" not in names(), deadline_s=PATIENCE_S, what="the adapter gone")
        assert ask("api").status_code == 404
        assert ask(MODEL).status_code == 200
