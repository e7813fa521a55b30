"""``VllmWorker``: one machine's share of an engine whose first machine is another one.

vLLM's processes here find those of the first machine by themselves, through the address where all meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.environment import provide_variables
from engine.errors import EngineLoadError
from engine.vllm.arguments import CPU_VARIABLES, engine_arguments, environment
from engine.vllm.checkpoint import check_checkpoint
from engine.vllm.tokenizer_files import TokenizerFolder

if TYPE_CHECKING:
    from config.runtime import EngineRuntime


class VllmWorker:
    """Computes on this machine's GPUs what the first machine asks for."""

    def __init__(self, runtime: EngineRuntime) -> None:
        """Load this machine's share of the model, which waits for all the others.

        Raises:
            ImportError: vLLM is not installed.
            EngineLoadError: the checkpoint is missing or damaged, or vLLM does not start.
        """
        checkpoint = check_checkpoint(runtime)
        provide_variables(environment(runtime))
        # Imported here: it imports vLLM, which reads the variables above.
        from engine.vllm import library  # noqa: PLC0415

        self._library = library
        self._tokenizer = TokenizerFolder(runtime.tokenizer_path, checkpoint.config)
        if library.is_on_cpu():
            provide_variables(CPU_VARIABLES)
        arguments = engine_arguments(runtime, on_cpu=library.is_on_cpu())
        try:
            self._executor = library.start_worker({**arguments, "tokenizer": str(self._tokenizer.path)})
        except Exception as error:
            self._tokenizer.close()
            message = f"vLLM cannot load {runtime.checkpoint_path} on this node: {error}"
            raise EngineLoadError(message) from error

    def sentinels(self) -> list[int]:
        """Return a file descriptor for each of vLLM's processes, readable once it has ended."""
        return self._library.worker_sentinels(self._executor)
