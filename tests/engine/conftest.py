"""Fixtures of the engine tests: checkpoints, an in-process core, engine processes, and clients for them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config.runtime import EngineRuntime
from engine.core import EngineDelta, EngineRequest, FinishReason, Sampling, TokenLogprob, Usage
from engine.llama_cpp.core import LlamaCppCore
from engine.triton.client import EngineClient

CHECKPOINTS = Path(__file__).parents[2] / "demo" / "checkpoints"
EMBEDDED = (sys.executable, "-m", "engine")
START_TIMEOUT_S = 100.0
VLLM_START_TIMEOUT_S = 600.0
VLLM_CACHE_BLOCK = 32
MAX_SEQUENCES = 32
CONTEXT_TOKENS = 2048


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-dir", type=Path, action="append", help="checkpoint folder to test instead of the demo ones"
    )
    parser.addoption("--vllm-python", type=Path, help="interpreter whose environment holds vLLM; tests that core too")
    parser.addoption(
        "--vllm-triton-python", type=Path, help="the same, with Triton's server beside vLLM: runs it in there"
    )
    parser.addoption("--tensorrt-llm-python", type=Path, help="the same for TensorRT-LLM; without it a stand-in")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "differs(CORE=REASON): this core does otherwise, as docs/engine.md says")
    config.addinivalue_line("markers", "one_checkpoint: is about processes, whatever they have loaded")


def pytest_runtest_setup(item: pytest.Item) -> None:
    engine = str(item.callspec.params.get("open_engine")) if hasattr(item, "callspec") else ""
    engine = engine.removesuffix("_triton")
    for mark in item.iter_markers("differs"):
        if engine in mark.kwargs:
            pytest.skip(f"{engine} {mark.kwargs[engine]}")


def checkpoint_dirs(config: pytest.Config) -> list[Path]:
    """Return the folders given on the command line, or the demo checkpoints."""
    given: list[Path] | None = config.getoption("--model-dir", None)
    return given or [CHECKPOINTS / "demo-moe", CHECKPOINTS / "demo-dense"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model_dir" in metafunc.fixturenames:
        folders = checkpoint_dirs(metafunc.config)
        if metafunc.definition.get_closest_marker("one_checkpoint"):
            folders = folders[:1]
        metafunc.parametrize("model_dir", folders, ids=lambda d: d.name, scope="session")
    if "open_engine" in metafunc.fixturenames:
        options = {"vllm": "--vllm-python", "vllm_triton": "--vllm-triton-python"}
        more = [engine for engine, option in options.items() if metafunc.config.getoption(option, None)]
        triton = pytest.param("triton", marks=pytest.mark.slow)
        tensorrt_llm = pytest.param("tensorrt_llm", marks=pytest.mark.slow)
        metafunc.parametrize("open_engine", ["core", "grpc", triton, tensorrt_llm, *more], indirect=True)


@dataclass(frozen=True)
class Vocabulary:
    """Ids of one checkpoint's tokenizer by name, and how to spell text."""

    ids: dict[str, int]

    @property
    def image(self) -> int:
        return self.ids["<|image|>"]

    def ordinary(self, count: int, seed: int = 0) -> tuple[int, ...]:
        """Return ids of ordinary words, different for different seeds."""
        words = sorted(i for text, i in self.ids.items() if text.isalpha())
        return tuple(words[(seed * 31 + k * 7) % len(words)] for k in range(count))

    def prompt(self, count: int, seed: int = 0) -> tuple[int, ...]:
        """Return a prompt of ``count`` ids that starts as every Gemma prompt does."""
        return (self.ids["<bos>"], *self.ordinary(count - 1, seed))


@pytest.fixture(scope="session")
def vocabulary(model_dir: Path) -> Vocabulary:
    content = json.loads((model_dir / "tokenizer.json").read_text(encoding="utf-8"))
    return Vocabulary(content["model"]["vocab"] | {t["content"]: t["id"] for t in content["added_tokens"]})


@dataclass
class Result:
    """Everything that one sequence gave."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    deltas: list[EngineDelta] = field(default_factory=list)

    @property
    def finish_reason(self) -> FinishReason | None:
        return self.deltas[-1].finish_reason

    @property
    def usage(self) -> Usage:
        usage = self.deltas[-1].usage
        assert usage is not None
        return usage


Engine = LlamaCppCore | EngineClient
OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]
GREEDY = Sampling(temperature=0.0)
_numbers = itertools.count()
_salt = ""


@pytest.fixture(autouse=True)
def own_part_of_the_cache(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let requests of a test find in the prefix cache of a shared engine only what the same test has computed.

    In whose company a prefix was computed moves its figures a little, and which tests ran before is chance.
    """
    global _salt  # noqa: PLW0603 - of the test that runs
    is_shared = any(name == "open_engine" or name.startswith("shared_") for name in request.fixturenames)
    _salt = f"test{next(_numbers)}" if is_shared else ""
    yield
    _salt = ""


def request(prompt_ids: tuple[int, ...], max_tokens: int = 16, **fields: Any) -> EngineRequest:
    """Return a greedy request with a fresh id."""
    fields.setdefault("sampling", GREEDY)
    fields.setdefault("request_id", f"r{next(_numbers)}")
    fields.setdefault("cache_salt", _salt)
    return EngineRequest(prompt_ids=prompt_ids, max_tokens=max_tokens, **fields)


async def collect(engine: Engine, wanted: EngineRequest) -> Result:
    """Run one sequence to its end."""
    result = Result()
    async for delta in engine.generate(wanted):
        result.token_ids += delta.token_ids
        result.logprobs += delta.logprobs
        result.deltas.append(delta)
    return result


async def wait_until(condition: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    """Wait for a condition, or fail after the deadline."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.005)


async def stats_of(engine: Engine) -> tuple[int, int]:
    """Return how many sequences run and wait."""
    stats = await engine.stats() if isinstance(engine, EngineClient) else engine.stats()
    return stats.running, stats.queued


@dataclass(frozen=True)
class Tools:
    """The functions above, for tests: test files are no package, so they cannot import from here."""

    request = staticmethod(request)
    collect = staticmethod(collect)
    wait_until = staticmethod(wait_until)
    stats_of = staticmethod(stats_of)
    greedy = GREEDY


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()


@pytest.fixture(scope="session")
def make_runtime(model_dir: Path) -> Callable[..., EngineRuntime]:
    """Return a factory of runtimes for the checkpoint under test."""

    def make(**changes: Any) -> EngineRuntime:
        fields: dict[str, Any] = {
            "model_path": model_dir / "model.gguf",
            "checkpoint_path": model_dir,
            "mmproj_path": model_dir / "mmproj.gguf",
            "tokenizer_path": model_dir / "tokenizer.json",
            "endpoint": "unix:/nowhere",
            "context_tokens": CONTEXT_TOKENS,
            "max_sequences": MAX_SEQUENCES,
            "max_queued": 64,
        }
        return EngineRuntime(**fields | changes)

    return make


class EngineProcess:
    """A child process ``python -m engine``, or another one that takes the same arguments."""

    def __init__(self, runtime: EngineRuntime, folder: Path, program: Sequence[str] = EMBEDDED) -> None:
        self.endpoint = runtime.endpoint
        self.start_timeout_s = START_TIMEOUT_S if runtime.core == "llama_cpp" else VLLM_START_TIMEOUT_S
        path = folder / "runtime.json"
        path.write_text(runtime.model_dump_json(), encoding="utf-8")
        self._errors = (folder / "stderr.txt").open("w+")
        command = [*program, "--runtime", str(path)]
        self.process = subprocess.Popen(command, stderr=self._errors, stdout=subprocess.DEVNULL)

    def errors(self) -> str:
        """Return what the process wrote to standard error."""
        # Opened anew: the process writes where a place in this file is shared with it.
        return Path(self._errors.name).read_text(encoding="utf-8", errors="replace")

    async def wait_ready(self, client: EngineClient) -> None:
        """Wait until the model is loaded."""
        deadline = time.monotonic() + self.start_timeout_s
        while not await client.ready():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, self.errors()
            await asyncio.sleep(0.02)

    def stop(self) -> int:
        """End the process and return its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(START_TIMEOUT_S)
        self._errors.close()
        return status


@pytest.fixture(scope="session")
def engine_process() -> type[EngineProcess]:
    """Return the class above, for tests that keep a process for longer than one test."""
    return EngineProcess


@pytest.fixture
def start_process(make_runtime: Callable[..., EngineRuntime]) -> Iterator[Callable[..., EngineProcess]]:
    """Return a factory of engine processes that are stopped after the test."""
    with contextlib.ExitStack() as stack:
        # Socket paths are limited to 107 bytes, which pytest's own folders may exceed.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="engine")))

        def start(program: Sequence[str] = EMBEDDED, **changes: Any) -> EngineProcess:
            changes.setdefault("endpoint", f"unix:{folder}/e.sock")
            process = EngineProcess(make_runtime(**changes), folder, program)
            stack.callback(process.stop)
            return process

        yield start


@pytest.fixture(scope="session")
def shared_core(make_runtime: Callable[..., EngineRuntime]) -> Iterator[LlamaCppCore]:
    core = LlamaCppCore(make_runtime())
    yield core
    asyncio.run(core.close())


@pytest.fixture(scope="session")
def shared_process(make_runtime: Callable[..., EngineRuntime]) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        process = EngineProcess(make_runtime(endpoint=f"unix:{name}/e.sock"), Path(name))
        yield process
        process.stop()


@pytest.fixture(scope="session")
def triton_program(triton_python: Path) -> list[str]:
    """Return the command that runs an engine in Triton's server."""
    return [str(triton_python), "-m", "engine.triton"]


@pytest.fixture(scope="session")
def shared_triton(make_runtime: Callable[..., EngineRuntime], triton_program: list[str]) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        process = EngineProcess(make_runtime(endpoint=f"unix:{name}/t.sock"), Path(name), triton_program)
        yield process
        process.stop()


@pytest.fixture(scope="session")
def vllm_python(request: pytest.FixtureRequest) -> Path:
    """Return the interpreter with vLLM, or skip the test where none is given."""
    python: Path | None = request.config.getoption("--vllm-python", None)
    if python is None:
        pytest.skip("needs vLLM: give --vllm-python")
    return python


@pytest.fixture(scope="session")
def shared_vllm(make_runtime: Callable[..., EngineRuntime], vllm_python: Path) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        runtime = make_runtime(core="vllm", endpoint=f"unix:{name}/v.sock")
        process = EngineProcess(runtime, Path(name), [str(vllm_python), "-m", "engine"])
        yield process
        process.stop()


@pytest.fixture(scope="session")
def vllm_triton_program(request: pytest.FixtureRequest) -> list[str]:
    """Return the command that runs vLLM in Triton's server, or skip the test where an environment cannot."""
    python: Path | None = request.config.getoption("--vllm-triton-python", None)
    if python is None:
        pytest.skip("needs vLLM and Triton's server in one environment: give --vllm-triton-python")
    asked = [str(python.absolute()), "-m", "engine.triton.installation"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
    if found.returncode != 0:
        pytest.skip(f"no Triton in the environment of {python}: {found.stderr.strip()}")
    return [asked[0], "-m", "engine.triton"]


@pytest.fixture(scope="session")
def shared_vllm_triton(
    make_runtime: Callable[..., EngineRuntime], vllm_triton_program: list[str]
) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        runtime = make_runtime(core="vllm", endpoint=f"unix:{name}/w.sock")
        process = EngineProcess(runtime, Path(name), vllm_triton_program)
        yield process
        process.stop()


@pytest.fixture(scope="session")
def shared_tensorrt_llm(
    request: pytest.FixtureRequest, make_runtime: Callable[..., EngineRuntime]
) -> Iterator[EngineProcess]:
    python: Path | None = request.config.getoption("--tensorrt-llm-python", None)
    stand_in = [sys.executable, "-m", "tests.fakes.tensorrt_llm_process"]
    program = [str(python), "-m", "engine"] if python else stand_in
    with tempfile.TemporaryDirectory(prefix="engine") as name:
        runtime = make_runtime(core="tensorrt_llm", endpoint=f"unix:{name}/l.sock")
        process = EngineProcess(runtime, Path(name), program)
        yield process
        process.stop()


@pytest.fixture
def open_engine(request: pytest.FixtureRequest, model_dir: Path) -> OpenEngine:  # noqa: ARG001
    """Return a way to reach an engine: the core itself, or one in another process, in Triton or on vLLM by the client.

    ``model_dir`` is named because a fixture that is looked up by name does not multiply a test by checkpoints.
    """
    if request.param == "core":
        core: LlamaCppCore = request.getfixturevalue("shared_core")

        @asynccontextmanager
        async def open_core() -> AsyncIterator[Engine]:
            yield core

        return open_core

    own = "shared_process" if request.param == "grpc" else f"shared_{request.param}"
    process: EngineProcess = request.getfixturevalue(own)

    @asynccontextmanager
    async def open_client() -> AsyncIterator[Engine]:
        client = EngineClient([process.endpoint])
        try:
            await process.wait_ready(client)
            yield client
        finally:
            await client.close()

    return open_client


@pytest.fixture
def cache_block(request: pytest.FixtureRequest) -> int:
    """Return in steps of how many tokens the engine under test remembers prompts."""
    return VLLM_CACHE_BLOCK if request.node.callspec.params["open_engine"].startswith("vllm") else 1


@pytest.fixture
def run(open_engine: OpenEngine) -> Callable[[Callable[[Engine], Coroutine[Any, Any, Any]]], Any]:
    """Return a function that runs one coroutine with an engine, in an event loop of its own."""

    def run_test(body: Callable[[Engine], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            async with open_engine() as engine:
                return await body(engine)

        return asyncio.run(main())

    return run_test
