"""The TensorRT-LLM core over a stand-in of the library that is generated from the contract."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.runtime import EngineRuntime
from engine.contract.entries import Contract
from engine.tensorrt_llm.contract_check import tensorrt_llm_contract
from tests.fakes.tensorrt_llm_contract import package
from tests.fakes.tensorrt_llm_engine import StandInEngine

CHECKPOINT = Path(__file__).parents[3] / "demo" / "checkpoints" / "demo-moe"
LOADED_WITH_THE_LIBRARY = ("engine.tensorrt_llm.library", "engine.tensorrt_llm.core")


@pytest.fixture(scope="session")
def contract() -> Contract:
    return tensorrt_llm_contract()


class Library:
    """The stand-in package, and the engine behind the ``LLM`` that was made last."""

    def __init__(self) -> None:
        self.engine: StandInEngine | None = None
        self.load_error: Exception | None = None

    def start(self, arguments: dict[str, Any], classes: Any) -> StandInEngine:
        if self.load_error is not None:
            raise self.load_error
        self.engine = StandInEngine(arguments, classes)
        return self.engine


@pytest.fixture(scope="module")
def library(contract: Contract) -> Iterator[Library]:
    """Import the core with the stand-in as its library; other tests' modules never see it."""
    made = Library()
    modules = package(contract, made.start)
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        made.core = importlib.import_module("engine.tensorrt_llm.core")
        made.module = importlib.import_module("engine.tensorrt_llm.library")
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    made.package = modules["tensorrt_llm"]
    made.api = modules["tensorrt_llm.llmapi"]
    yield made
    for name in LOADED_WITH_THE_LIBRARY:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def runtime_of() -> Callable[..., EngineRuntime]:
    """Return a factory of runtimes for the demo checkpoint."""

    def make(**changes: Any) -> EngineRuntime:
        fields: dict[str, Any] = {
            "core": "tensorrt_llm",
            "checkpoint_path": CHECKPOINT,
            "tokenizer_path": CHECKPOINT / "tokenizer.json",
            "endpoint": "unix:/nowhere",
            "context_tokens": 512,
            "max_sequences": 8,
            "max_queued": 4,
        }
        return EngineRuntime(**fields | changes)

    return make


@pytest.fixture(scope="session")
def ids() -> dict[str, int]:
    """Ids of the demo tokenizer by text."""
    content = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))
    return content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}


@pytest.fixture(scope="session")
def prompt(ids: dict[str, int]) -> Callable[..., tuple[int, ...]]:
    """Return a function that returns prompts of ordinary words."""
    words = sorted(token_id for text, token_id in ids.items() if text.isalpha())

    def make(count: int, seed: int = 0) -> tuple[int, ...]:
        return (ids["<bos>"], *(words[(seed * 31 + k * 7) % len(words)] for k in range(count - 1)))

    return make


@pytest.fixture
def run(library: Library, runtime_of: Callable[..., EngineRuntime]) -> Callable[..., Any]:
    """Return a function that runs one coroutine with a core of its own and the stand-in behind it."""

    def run_test(body: Callable[[Any, StandInEngine], Coroutine[Any, Any, Any]], **changes: Any) -> Any:
        async def main() -> Any:
            core = library.core.TensorRtLlmCore(runtime_of(**changes))
            assert library.engine is not None
            try:
                return await body(core, library.engine)
            finally:
                await core.close()

        return asyncio.run(asyncio.wait_for(main(), 250))

    return run_test


@pytest.fixture
def sent(library: Library) -> SimpleNamespace:
    """Return a way to look at the last request that the library was given."""

    def last() -> tuple[Any, Any, Any]:
        assert library.engine is not None
        return library.engine.requests[-1]

    return SimpleNamespace(
        inputs=lambda: last()[0], params=lambda: SimpleNamespace(**last()[1].given), cache_salt=lambda: last()[2]
    )
