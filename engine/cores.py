"""Which class hosts which engine.

Each core is imported only when it is wanted: an image holds the libraries of the engines that it serves, and no others.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.errors import EngineLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config.runtime import EngineRuntime
    from engine.core import EngineCore
    from engine.vllm.worker import VllmWorker


def load_core(runtime: EngineRuntime) -> EngineCore:
    """Load the core that the runtime names; this takes as long as reading the model takes.

    Raises:
        EngineLoadError: it cannot be loaded, or its library is not installed.
    """
    with _installed(runtime):
        return _load(runtime)


def load_worker(runtime: EngineRuntime) -> VllmWorker:
    """Load this machine's share of an engine whose first machine is another one; returns when all have loaded theirs.

    Raises:
        EngineLoadError: it cannot be loaded, or its library is not installed.
    """
    with _installed(runtime):
        from engine.vllm.worker import VllmWorker  # noqa: PLC0415

        return VllmWorker(runtime)


@contextmanager
def _installed(runtime: EngineRuntime) -> Iterator[None]:
    """Say which library is missing."""
    try:
        yield
    except ImportError as error:
        message = f"the engine {runtime.core} is not installed here: {error}"
        raise EngineLoadError(message) from error


def _load(runtime: EngineRuntime) -> EngineCore:
    if runtime.core == "vllm":
        from engine.vllm.core import VllmCore  # noqa: PLC0415

        return VllmCore(runtime)
    if runtime.core == "tensorrt_llm":
        from engine.tensorrt_llm.core import TensorRtLlmCore  # noqa: PLC0415

        return TensorRtLlmCore(runtime)
    from engine.llama_cpp.core import LlamaCppCore  # noqa: PLC0415

    return LlamaCppCore(runtime)
