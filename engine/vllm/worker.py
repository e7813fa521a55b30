"""``VllmWorker``: one machine's share of an engine whose first machine is another one.

vLLM's processes here find those of the first machine by themselves, through the address where all meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import EngineLoadError
from engine.vllm.preparing import prepare

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
        prepared = prepare(runtime)
        # Imported here: it imports vLLM, which reads variables that are set by now.
        from engine.vllm import library  # noqa: PLC0415

        self._library = library
        self._tokenizer = prepared.tokenizer
        try:
            self._executor = library.start_worker(prepared.arguments)
        except Exception as error:
            self._tokenizer.close()
            message = f"vLLM cannot load {runtime.checkpoint_path} on this node: {error}"
            raise EngineLoadError(message) from error

    def sentinels(self) -> list[int]:
        """Return a file descriptor for each of vLLM's processes, readable once it has ended."""
        return self._library.worker_sentinels(self._executor)
