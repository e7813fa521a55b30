"""Where engines put what they compile and choose while they run: folders of a bundle, named by environment variables.

The variables have to be set before an engine's process starts, because libraries read them when they are imported.
llama.cpp compiles nothing and has none.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Final

from engine_build.fingerprint import Engine

CACHES: Final = "caches"
"""Folder of a bundle."""
_VLLM: Final = MappingProxyType(
    {
        "VLLM_CACHE_ROOT": "vllm",
        "FLASHINFER_WORKSPACE_BASE": "flashinfer",
        "TRITON_CACHE_DIR": "triton",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "DG_JIT_CACHE_DIR": "deep_gemm",
        "CUDA_CACHE_PATH": "cuda",
    }
)


def cache_variables(engine: Engine, folder: Path) -> dict[str, str]:
    """Return the variables that put an engine's caches below ``folder``."""
    if engine == "vllm":
        return {variable: str(folder / name) for variable, name in _VLLM.items()}
    if engine == "tensorrt_llm":
        from engine.tensorrt_llm.arguments import cache_environment  # noqa: PLC0415 - only where it is built for

        return cache_environment(folder)
    return {}
