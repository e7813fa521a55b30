"""The engine's arguments as a bundle freezes them: made by the core's own rules, without what differs per start.

The file is YAML that a person can read and compare. What the arguments mean is the core's matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from config.runtime import EngineRuntime
from engine.errors import EngineLoadError
from engine_build.errors import PlanError
from engine_build.fingerprint import Engine
from engine_build.limits import Limits

ARGUMENTS_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {"llama_cpp": "engine_args.yaml", "vllm": "engine_args.yaml", "tensorrt_llm": "llm_args.yaml"}
)
"""Engine -> the file of a bundle that its arguments are frozen in."""
PLACE: Final = Path("/nowhere")
"""Stands for the checkpoint while arguments are made; where it lies is no part of them."""
CHECKPOINT: Final = "checkpoint"
"""Folder of a bundle with its weights."""
_PATHS: Final = ("model", "tokenizer")
_PER_START: Final = ("gpu_memory_utilization", "free_gpu_memory_fraction", "kv_cache_memory_bytes")


def engine_arguments(engine: Engine, precision: str, limits: Limits) -> dict[str, Any]:
    """Return the arguments with which an engine is started, without the place of its checkpoint.

    Raises:
        PlanError: the core cannot do what is asked for.
    """
    if engine == "llama_cpp":
        # Its limits are chosen at each start: nothing that a bundle holds depends on them.
        return {"format": "gguf"}
    runtime = EngineRuntime(
        core=engine,
        tokenizer_path=PLACE / "tokenizer.json",
        endpoint="unix:unused",
        checkpoint_path=PLACE,
        context_tokens=limits.context_tokens,
        max_sequences=limits.max_sequences,
        precision=precision,
        tensor_parallel=limits.tensor_parallel,
        gpu_memory_fraction=limits.gpu_memory_fraction,
    )
    try:
        arguments = _chosen(engine, runtime)
    except EngineLoadError as error:
        raise PlanError(error.message) from error
    return {name: value for name, value in arguments.items() if name not in _PATHS}


def lasting(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments without those that follow from how much memory happens to be free at a start.

    They are frozen, but two bundles that differ in them alone are the same bundle.
    """
    return {
        name: lasting(value) if isinstance(value, Mapping) else value
        for name, value in arguments.items()
        if name not in _PER_START
    }


def write_arguments(folder: Path, engine: Engine, arguments: Mapping[str, Any], *, has_checkpoint: bool) -> Path:
    """Write the arguments file of a bundle and return its path.

    Args:
        folder: the bundle.
        engine: whose arguments they are.
        arguments: from ``engine_arguments``.
        has_checkpoint: the weights lie in the bundle; the file then names their folder.
    """
    path = folder / ARGUMENTS_FILES[engine]
    content = {**arguments, "model": CHECKPOINT} if has_checkpoint and engine != "llama_cpp" else dict(arguments)
    path.write_text(yaml.safe_dump(content, sort_keys=True, allow_unicode=True), encoding="utf-8")
    return path


def _chosen(engine: Engine, runtime: EngineRuntime) -> dict[str, Any]:
    # Each core's rules are imported only when it is built for.
    if engine == "tensorrt_llm":
        from engine.tensorrt_llm.arguments import llm_arguments  # noqa: PLC0415

        return llm_arguments(runtime)
    from engine.vllm.arguments import engine_arguments as vllm_arguments  # noqa: PLC0415

    return vllm_arguments(runtime, on_cpu=False)
