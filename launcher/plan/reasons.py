"""The words of a plan: one line on why it is this one, and what a person should know about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from launcher.hardware.system import Gpu
from launcher.memory import gib
from launcher.plan.assess import Assessment, Scene
from launcher.plan.choose import Choice
from launcher.plan.devices import usable_gpus
from launcher.plan.fit import SMALL_BATCH_TOKENS, CpuFit, GpuFit, wanted_context
from launcher.plan.ranking import COMFORTABLE_CONTEXT, Support
from launcher.plan.remedies import ENGINE_NAMES
from launcher.plan.result import Rejection, Verdict
from launcher.plan.wishes import Wishes

BUSY_SHARE: Final = 0.9
"""A GPU of which less than this share is free is in use by others."""


def why_chosen(choice: Choice, scene: Scene, *, named: bool) -> str:
    """Return in one line why this profile was chosen."""
    chosen, profile = choice.chosen, choice.chosen.profile
    if named:
        return "NIM_MODEL_PROFILE asks for it"
    if chosen.gpu is None:
        return f"{_why_cpu(scene, choice.rejected)}; {profile.precision} is the fastest that fits into main memory"
    fit, gpus = chosen.gpu, chosen.gpu.devices.gpus
    capability = ".".join(str(part) for part in gpus[0].compute_capability)
    engine = ENGINE_NAMES.get(profile.engine, profile.engine)
    praise = "at its best" if chosen.support is Support.PREFERRED else "proven"
    native = chosen.ability is None or chosen.ability.native
    precision = f"{profile.precision} is native" if native else f"{profile.precision}, emulated, is what fits"
    return f"{engine} is {praise} on compute capability {capability}; {precision}; {_why_count(choice, fit)}"


def _why_count(choice: Choice, fit: GpuFit) -> str:
    count = len(fit.devices.gpus)
    if count == 1:
        return "one GPU holds it"
    # Every wish of the rank but the last, which is about the number of GPUs.
    wish = choice.chosen.rank[:-1]
    fewer = [one for one in choice.runnable if one.rank[:-1] == wish and one.profile.tensor_parallel < count]
    same = [one for one in fewer if one.profile.variant == choice.chosen.profile.variant and not one.code]
    return f"{count} GPUs, linked by NVLink, shorten answers" if same else f"it takes {count} GPUs to hold it"


def _why_cpu(scene: Scene, rejected: Sequence[Rejection]) -> str:
    if not scene.system.gpus:
        return "no GPU can be seen" if scene.system.problems else "there is no GPU"
    if not usable_gpus(scene.system):
        return "no GPU can be used"
    if not scene.engines - {"llama_cpp"}:
        return "there is no engine for GPUs in this image"
    low = [one for one in rejected if one.verdict is Verdict.LOW_MEMORY and one.profile.engine != "llama_cpp"]
    return "the GPUs have too little free memory" if low else "no engine of this image runs on these GPUs"


def gpu_notes(chosen: Assessment, fit: GpuFit, scene: Scene) -> Iterator[str]:
    """Yield what a person should know of a plan on GPUs."""
    gpus, wishes = fit.devices.gpus, scene.wishes
    if chosen.code == "unproven":
        yield f"unproven: {chosen.reason}"
    elif chosen.ability is not None and not chosen.ability.native:
        yield f"{chosen.profile.precision} is emulated on these GPUs: that saves memory, but no time"
    yield from _context_notes(fit, wishes)
    busy = [gpu for gpu in gpus if not gpu.unified_memory and gpu.memory_free < gpu.memory_total * BUSY_SHARE]
    for gpu in busy:
        held = gib(gpu.memory_total - gpu.memory_free)
        yield f"GPU {gpu.index} is in use: {held} of {gib(gpu.memory_total)} are held"
    if gpus[0].unified_memory:
        yield f"GPU and processor share one memory: {gib(wishes.host_reserve)} stay for the system"
    if len(gpus) > 1 and not fit.devices.linked:
        yield f"{_named(gpus)} are not linked by NVLink: every token waits for an exchange over PCIe"
    free = [gpu for gpu in usable_gpus(scene.system) if gpu.memory_free >= gpu.memory_total * BUSY_SHARE]
    idle = [gpu for gpu in free if gpu not in gpus]
    if idle:
        stay = "stays" if len(idle) == 1 else "stay"
        yield f"{_named(idle)} {stay} unused: more would not make one engine faster; start further containers for them"


def _context_notes(fit: GpuFit, wishes: Wishes) -> Iterator[str]:
    wanted = wanted_context(wishes, on_gpu=True)
    usual = wanted if wishes.context is not None else min(wanted, COMFORTABLE_CONTEXT)
    if fit.context < usual:
        yield (
            f"memory is short: {fit.context} tokens of context instead of {usual}; "
            "set NIM_MAX_MODEL_LEN to choose otherwise, or NIM_STRICT_FIT=1 to refuse"
        )
    if wishes.cuda_graphs and not fit.load.graphs:
        yield "memory is short: without CUDA graphs, so each token takes longer"
    elif fit.load.batch_tokens == SMALL_BATCH_TOKENS:
        yield f"memory is short: prompts are computed {SMALL_BATCH_TOKENS} tokens at a time"
    if fit.full_sequences < 1:
        yield "the estimate says that memory does not suffice; NIM_RELAX_MEM_CONSTRAINTS=1 tries all the same"


def cpu_notes(fit: CpuFit, usual: tuple[int, int], available: int | None) -> Iterator[str]:
    """Yield what a person should know of the figures for the CPU engine; ``usual`` is (context, sequences)."""
    if (fit.context, fit.sequences) != usual:
        yield (
            f"memory is short: {fit.sequences} x {fit.context} tokens instead of {usual[1]} x {usual[0]}; "
            "set NIM_MAX_MODEL_LEN and NIM_MAX_NUM_SEQS to choose otherwise"
        )
    if available is None:
        yield "the available memory cannot be told, so the estimate was not checked"


def fault_notes(scene: Scene) -> Iterator[str]:
    """Yield what keeps GPUs from being used, with the remedy, when the CPU engine has to do."""
    faults = [gpu.problem for gpu in scene.system.gpus if gpu.problem is not None] + list(scene.system.problems)
    for fault in faults[:1]:
        yield f"{fault.what.rstrip('.')}: {fault.remedy}"


def _named(gpus: Sequence[Gpu]) -> str:
    if any(gpu.mig_profile for gpu in gpus):
        return "a MIG slice" if len(gpus) == 1 else f"{len(gpus)} MIG slices"
    return ("GPU " if len(gpus) == 1 else "GPUs ") + ", ".join(str(gpu.index) for gpu in gpus)
