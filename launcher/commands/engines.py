"""Which engines this installation can start: those that the project has a core for and whose library is installed."""

from __future__ import annotations

import importlib.util
from types import MappingProxyType
from typing import Final, get_args

from config.runtime import EngineRuntime

LIBRARIES: Final = MappingProxyType({"llama_cpp": "xllamacpp", "vllm": "vllm", "tensorrt_llm": "tensorrt_llm"})
"""Engine -> the package that does its work."""
GPU_ENGINES: Final = frozenset({"vllm", "tensorrt_llm"})


def available_engines() -> frozenset[str]:
    """Return the engines that can be started here; nothing is imported for that."""
    cores = get_args(EngineRuntime.model_fields["core"].annotation)
    return frozenset(core for core in cores if importlib.util.find_spec(LIBRARIES.get(core, core)) is not None)
