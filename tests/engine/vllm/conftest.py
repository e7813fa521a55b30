"""Fixtures of the vLLM core's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.runtime import EngineRuntime

DEMO = Path(__file__).parents[3] / "demo" / "checkpoints" / "demo-moe"


@pytest.fixture(scope="session")
def vllm_runtime() -> Callable[..., EngineRuntime]:
    """Return a factory of runtimes of the vLLM core for a demo checkpoint."""

    def make(**changes: Any) -> EngineRuntime:
        fields: dict[str, Any] = {
            "core": "vllm",
            "checkpoint_path": DEMO,
            "tokenizer_path": DEMO / "tokenizer.json",
            "endpoint": "unix:/nowhere",
            "context_tokens": 1024,
        }
        return EngineRuntime(**fields | changes)

    return make
