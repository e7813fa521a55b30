"""How much context a profile gets on given devices: the steps in which it shrinks, and what is given up for it.

The first setting of an engine that reaches the wanted context wins; where none does, the one that gets furthest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from config.manifest import Profile
from config.manifest_source import DRAFT_FOLDER
from config.variants import TRAINED_CONTEXT, find_variant
from launcher.memory import MemoryEstimate, ModelShape, estimate_memory
from launcher.memory_gpu import GpuLoad, concurrent_sequences, estimate_gpu, largest_context
from launcher.plan.devices import Devices
from launcher.plan.ranking import COMFORTABLE_CONTEXT
from launcher.plan.wishes import Wishes

SMALLEST_CONTEXT: Final = 2048
CPU_CONTEXT: Final = 32_768
"""Tokens per request of the CPU engine unless told otherwise: more is rarely useful at the speed of a CPU."""
CPU_SEQUENCES: Final = {"latency": 4, "throughput": 8}
GPU_SEQUENCES: Final = {"latency": 64, "throughput": 256}
MEMORY_SHARE: Final = 0.9
"""Share of the available main memory that a plan may use; the rest is for the page cache and other programs."""
BATCH_TOKENS: Final = 8192
SMALL_BATCH_TOKENS: Final = 2048
"""The largest picture must fit into one batch."""
CONTEXT_WITHOUT_GRAPHS: Final = 8192
"""CUDA graphs are given up to start at all, not for a long context: without them each token takes far longer."""


@dataclass(frozen=True, slots=True)
class GpuFit:
    """What fits on a set of GPUs.

    Attributes:
        context: tokens of one request; 0 when not even the smallest context fits.
        counted: those of them that make a profile better than another.
        largest: tokens that one request could have without steps.
    """

    load: GpuLoad
    devices: Devices
    context: int
    counted: int
    largest: int

    @property
    def full_sequences(self) -> int:
        """Return how many requests of full length the cache holds at the same time, at most those that are served."""
        return min(concurrent_sequences(self.load, self.devices.budget, self.context), self.load.sequences)

    @property
    def memory(self) -> MemoryEstimate:
        """Return the bytes on each GPU with the cache full of such requests."""
        return estimate_gpu(self.load, self.context, max(self.full_sequences, 1))


@dataclass(frozen=True, slots=True)
class CpuFit:
    """What fits into main memory; ``context`` is 0 when nothing does."""

    context: int
    sequences: int
    memory: MemoryEstimate


def wanted_context(wishes: Wishes, *, on_gpu: bool, trained: int = TRAINED_CONTEXT) -> int:
    """Return the tokens that a request should be able to have."""
    return wishes.context or (trained if on_gpu else min(CPU_CONTEXT, trained))


def step_down(largest: int, wanted: int) -> int:
    """Return the largest context that is offered: the wanted one, or a power of two below; 0 below the smallest."""
    if largest >= wanted:
        return wanted
    step = SMALLEST_CONTEXT
    if largest < step:
        return 0
    while step * 2 <= largest:
        step *= 2
    return step


def fit_gpu(profile: Profile, devices: Devices, wishes: Wishes) -> GpuFit:
    """Find the engine's setting that gives the profile the most useful context on these GPUs."""
    wanted = wanted_context(wishes, on_gpu=True)
    fits = [_fit(load, cap, devices, wishes) for load, cap in _settings(profile, wishes, wanted)]
    # The first of equals: max keeps the setting that gives up least.
    best = max(fits, key=lambda fit: fit.context)
    if wishes.relax_memory and best.context == 0:
        return replace(best, context=min(SMALLEST_CONTEXT, wanted))
    return best


def _fit(load: GpuLoad, cap: int, devices: Devices, wishes: Wishes) -> GpuFit:
    largest = largest_context(load, devices.budget)
    context = min(step_down(largest, wanted_context(wishes, on_gpu=True)), cap)
    return GpuFit(load, devices, context, _counted(context, wishes), largest)


def frugal_loads(profile: Profile, wishes: Wishes) -> tuple[GpuLoad, GpuLoad]:
    """Return what the profile puts on each GPU with small batches, and the least that it can make do with."""
    loads = [load for load, _ in _settings(profile, wishes, SMALLEST_CONTEXT)]
    return loads[1], loads[-1]


def _counted(context: int, wishes: Wishes) -> int:
    return context if wishes.context is not None or wishes.strict_fit else min(context, COMFORTABLE_CONTEXT)


def _settings(profile: Profile, wishes: Wishes, wanted: int) -> Iterator[tuple[GpuLoad, int]]:
    """Yield the engine's settings, the best first, each with the longest context for which it may be taken."""
    free = wanted if wishes.context is not None or wishes.strict_fit else min(wanted, COMFORTABLE_CONTEXT)
    usual = GPU_SEQUENCES.get(profile.objective, GPU_SEQUENCES["throughput"])
    yield _load(profile, wishes, BATCH_TOKENS, usual), wanted
    yield _load(profile, wishes, SMALL_BATCH_TOKENS, min(usual, 64)), free
    yield _load(profile, wishes, SMALL_BATCH_TOKENS, 16), free
    if wishes.cuda_graphs:
        plain = replace(wishes, cuda_graphs=False)
        yield _load(profile, plain, SMALL_BATCH_TOKENS, 8), min(free, CONTEXT_WITHOUT_GRAPHS)


def _load(profile: Profile, wishes: Wishes, batch_tokens: int, sequences: int) -> GpuLoad:
    draft = sum(file.planned_size for file in profile.files if file.path.startswith(f"{DRAFT_FOLDER}/"))
    return GpuLoad(
        variant=find_variant(profile.variant),
        engine=profile.engine,
        weight_bytes=profile.download_size - draft,
        draft_bytes=draft,
        tensor_parallel=profile.tensor_parallel,
        batch_tokens=batch_tokens,
        sequences=wishes.sequences or sequences,
        graphs=wishes.cuda_graphs,
        lora_rank=(wishes.lora_rank or int(profile.tags.get("feat_lora_max_rank", "32"))) if profile.lora else 0,
        lora_slots=wishes.lora_slots,
    )


def fit_cpu(shape: ModelShape, weight_bytes: int, available: int | None, wishes: Wishes, sequences: int) -> CpuFit:
    """Find the longest context, and for it the most sequences, that fit; unknown memory is taken for enough."""
    limit = None if available is None else int(available * MEMORY_SHARE)
    choices = list(cpu_choices(shape, wishes, sequences))
    for context, count in choices:
        memory = estimate_memory(shape, weight_bytes, context, count)
        if limit is None or memory.total <= limit:
            return CpuFit(context, count, memory)
    context, count = choices[-1]
    smallest = estimate_memory(shape, weight_bytes, context, count)
    return CpuFit(context if wishes.relax_memory else 0, count, smallest)


def cpu_choices(shape: ModelShape, wishes: Wishes, sequences: int) -> Iterator[tuple[int, int]]:
    """Yield (context, sequences) from the best to the smallest: a long context goes before many sequences."""
    contexts = [wanted_context(wishes, on_gpu=False, trained=shape.trained_context)]
    if not wishes.strict_fit:
        while (below := step_down(contexts[-1] - 1, contexts[0])) > 0:
            contexts.append(below)
    counts = [wishes.sequences or sequences]
    if wishes.sequences is None:
        while counts[-1] > 1:
            counts.append(counts[-1] // 2)
    yield from ((context, count) for context in contexts for count in counts)
