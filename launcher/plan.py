"""Decides what is started and how: settings and facts in, an immutable plan or a refusal out.

Pure: no file, no clock, no process. ``--dry-run`` prints its result, ``launcher.supervisor`` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from config.settings import Settings
from launcher.machine import Machine
from launcher.memory import MemoryEstimate, estimate_memory
from launcher.model import ModelFiles

DEFAULT_CONTEXT: Final = 32_768
"""Tokens per request unless told otherwise: more is rarely useful at the speed of a CPU."""
SMALLEST_CONTEXT: Final = 2048
DEFAULT_SEQUENCES: Final = 8
MEMORY_SHARE: Final = 0.9
"""Share of the available memory that a plan may use; the rest is for the page cache and other programs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will run.

    Attributes:
        context_tokens: prompt plus completion of one request.
        notes: why a figure is not the usual one, for people.
    """

    model: ModelFiles
    host: str
    port: int
    core: str
    context_tokens: int
    max_sequences: int
    max_queued: int
    threads: int
    memory: MemoryEstimate
    memory_available: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing can run here, and what would help."""

    reason: str
    remedy: str


def make_plan(settings: Settings, machine: Machine, model: ModelFiles) -> Plan | Refusal:
    """Choose context, sequences and threads so that the model fits this machine."""
    asked = settings.model.max_model_len
    if asked is not None and asked > model.shape.trained_context:
        return Refusal(
            f"NIM_MAX_MODEL_LEN={asked} is more than the {model.shape.trained_context} tokens the model was made for",
            f"set NIM_MAX_MODEL_LEN to {model.shape.trained_context} or less, or leave it unset",
        )
    limit = None if machine.memory_bytes is None else int(machine.memory_bytes * MEMORY_SHARE)
    choices = list(_choices(settings, model))
    for context, sequences in choices:
        memory = estimate_memory(model.shape, model.weight_bytes, context, sequences)
        if limit is None or memory.total <= limit:
            return _plan(settings, machine, model, (context, sequences), choices[0])
    if settings.launch.relax_memory:
        return _plan(settings, machine, model, choices[-1], choices[0])
    return _too_little_memory(settings, machine, model, choices[-1])


def _choices(settings: Settings, model: ModelFiles) -> Iterator[tuple[int, int]]:
    """Yield (context, sequences) from the best to the smallest: a long context goes before many sequences."""
    contexts = [settings.model.max_model_len or min(DEFAULT_CONTEXT, model.shape.trained_context)]
    if settings.model.max_model_len is None:
        while contexts[-1] // 2 >= SMALLEST_CONTEXT:
            contexts.append(contexts[-1] // 2)
    counts = [settings.engine.max_num_seqs or DEFAULT_SEQUENCES]
    if settings.engine.max_num_seqs is None:
        while counts[-1] > 1:
            counts.append(counts[-1] // 2)
    several = [count for count in counts if count > 1]
    yield from ((context, count) for context in contexts for count in several)
    if 1 in counts:
        yield from ((context, 1) for context in contexts)


def _plan(
    settings: Settings, machine: Machine, model: ModelFiles, chosen: tuple[int, int], wanted: tuple[int, int]
) -> Plan:
    context, sequences = chosen
    return Plan(
        model=model,
        host=settings.server.host,
        port=settings.server.port,
        core="llama_cpp",
        context_tokens=context,
        max_sequences=sequences,
        max_queued=settings.engine.max_queued,
        # One core is left for the API: spinning compute threads that have to share a core slow down a hundredfold.
        threads=settings.engine.threads or max(machine.cores - 1, 1),
        memory=estimate_memory(model.shape, model.weight_bytes, context, sequences),
        memory_available=machine.memory_bytes,
        notes=tuple(_notes(settings, machine, model, chosen, wanted)),
    )


def _notes(
    settings: Settings, machine: Machine, model: ModelFiles, chosen: tuple[int, int], wanted: tuple[int, int]
) -> Iterator[str]:
    if chosen != wanted:
        yield (
            f"memory is short: {chosen[1]} x {chosen[0]} tokens instead of {wanted[1]} x {wanted[0]}; "
            "set NIM_MAX_MODEL_LEN and NIM_MAX_NUM_SEQS to choose otherwise"
        )
    if model.projector is None:
        yield "no vision tower was found, so pictures are refused; put mmproj*.gguf beside the model"
    if settings.engine.threads is not None and settings.engine.threads > machine.cores:
        yield f"NIM_ENGINE_THREADS={settings.engine.threads} is more than the {machine.cores} cores here: slow"
    if machine.memory_bytes is None:
        yield "the available memory cannot be told, so the estimate was not checked"


def _too_little_memory(settings: Settings, machine: Machine, model: ModelFiles, smallest: tuple[int, int]) -> Refusal:
    need = estimate_memory(model.shape, model.weight_bytes, *smallest).total
    fixed = [
        name
        for name, value in (
            ("NIM_MAX_MODEL_LEN", settings.model.max_model_len),
            ("NIM_MAX_NUM_SEQS", settings.engine.max_num_seqs),
        )
        if value is not None
    ]
    advice = f"lower {' or '.join(fixed)}, or " if fixed else ""
    return Refusal(
        f"too little memory: {smallest[1]} x {smallest[0]} tokens of this model need about {gib(need / MEMORY_SHARE)}, "
        f"and {gib(machine.memory_bytes or 0)} are available",
        f"{advice}use a smaller model or quantisation, or free memory; NIM_RELAX_MEM_CONSTRAINTS=1 tries all the same",
    )


def gib(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
