"""What comes before vLLM starts, in an engine and in a worker of one alike: checkpoint, environment, arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from config.environment import provide_variables
from engine.vllm.arguments import CPU_VARIABLES, engine_arguments, environment
from engine.vllm.checkpoint import Checkpoint, check_checkpoint
from engine.vllm.tokenizer_files import TokenizerFolder

if TYPE_CHECKING:
    from config.runtime import EngineRuntime


@dataclass(frozen=True, slots=True)
class Prepared:
    """What vLLM starts with. ``tokenizer`` is to be closed when it has ended, or has not started."""

    checkpoint: Checkpoint
    tokenizer: TokenizerFolder
    arguments: dict[str, Any]


def prepare(runtime: EngineRuntime) -> Prepared:
    """Check the checkpoint, set vLLM's variables, import it, and return what it starts with.

    Raises:
        ImportError: vLLM is not installed.
        engine.errors.EngineLoadError: the checkpoint is missing or damaged.
    """
    checkpoint = check_checkpoint(runtime)
    provide_variables(environment(runtime))
    # Imported here: it imports vLLM, which reads the variables above.
    from engine.vllm import library  # noqa: PLC0415

    is_on_cpu = library.is_on_cpu()
    if is_on_cpu:
        provide_variables(CPU_VARIABLES)
    tokenizer = TokenizerFolder(runtime.tokenizer_path, checkpoint.config)
    arguments = engine_arguments(runtime, on_cpu=is_on_cpu, layers=checkpoint.layers)
    return Prepared(checkpoint, tokenizer, {**arguments, "tokenizer": str(tokenizer.path)})
