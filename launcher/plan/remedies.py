"""What would help: for every profile that was not chosen a sentence with a variable or a command that works.

A profile that would run is chosen by its name. For one that would not, the nearest thing that runs here comes first,
then the hardware that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from config.gpus import GpuModel, all_gpus
from config.manifest import Profile
from launcher.hardware.system import Gpu
from launcher.memory import gib
from launcher.plan.assess import Assessment, Scene
from launcher.plan.ranking import Support, ability
from launcher.plan.result import Verdict
from launcher.plan.wishes import SMALL_GPU_HEADROOM_SHARE, USUAL_HEADROOM

ENGINE_NAMES: Final = {"tensorrt_llm": "TensorRT-LLM", "vllm": "vLLM", "llama_cpp": "llama.cpp"}


def by_name(profile: Profile, *conflicting: str) -> str:
    """Return how to choose a profile that would run."""
    unset = f"unset {' and '.join(dict.fromkeys(conflicting))} and " if conflicting else ""
    return f"{unset}set NIM_MODEL_PROFILE={profile.name}"


def hardware_remedy(found: Assessment, scene: Scene, runnable: Sequence[Assessment]) -> str:
    """Return what would let a profile run that does not run here; ``runnable`` are those that do, the best first."""
    profile = found.profile
    if found.verdict is Verdict.LOW_MEMORY:
        return _memory_remedy(found, scene, runnable)
    if found.code in ("no-gpu", "gpu-problem"):
        return f"{_repair(scene)}; {_estimate(profile, found.smallest_bytes)}"
    if found.code == "cpu":
        return "use a processor with AVX2, or a GPU: `gemma4-nim doctor` shows what is there"
    if found.code == "engine-missing":
        name = ENGINE_NAMES.get(profile.engine, profile.engine)
        return f"start the image that is made for {name}{_instead(profile, runnable, scene)}"
    if found.code == "pipeline":
        return f"take a profile with pp 1{_instead(profile, runnable, scene)}"
    return _estimate(profile, found.smallest_bytes, _more_of_the_same(found, scene)) + _instead(
        profile, runnable, scene
    )


def _repair(scene: Scene) -> str:
    """Return what would make a GPU usable: the remedy of the first thing that is wrong."""
    faults = [gpu.problem for gpu in scene.system.gpus if gpu.problem is not None] + list(scene.system.problems)
    return faults[0].remedy.rstrip(".") if faults else "start the container with --gpus all"


def _memory_remedy(found: Assessment, scene: Scene, runnable: Sequence[Assessment]) -> str:
    profile, wishes = found.profile, scene.wishes
    if found.code == "strict-fit" and found.gpu is not None:
        return f"set NIM_MAX_MODEL_LEN={found.gpu.largest} or NIM_STRICT_FIT=0"
    parts = []
    if wishes.sequences is not None:
        parts.append("lower NIM_MAX_NUM_SEQS")
    if wishes.strict_fit and wishes.context is not None:
        parts.append("lower NIM_MAX_MODEL_LEN or set NIM_STRICT_FIT=0")
    if found.gpu is not None:
        busy = [gpu for gpu in found.gpu.devices.gpus if _would_suffice(gpu, found.smallest_bytes)]
        if busy:
            parts.append(f"free memory of GPU {busy[0].index}: {_held(busy[0])}")
        parts.append(_estimate(profile, found.smallest_bytes))
    else:
        needed = gib(found.smallest_bytes)
        parts.append(f"free memory or raise the container's limit: it starts with {needed} available")
    return ", or ".join(parts) + _instead(profile, runnable, scene)


def _would_suffice(gpu: Gpu, needed: int) -> bool:
    return gpu.memory_free < gpu.memory_total * 9 // 10 and gpu.memory_total - _headroom(gpu.memory_total) >= needed


def _held(gpu: Gpu) -> str:
    held = gib(gpu.memory_total - gpu.memory_free)
    holders = [f"{process.name or 'a process'} (pid {process.pid})" for process in gpu.processes[:3]]
    return f"{held} are held" + (f" by {', '.join(holders)}" if holders else "")


def _nearest(profile: Profile, runnable: Sequence[Assessment]) -> Assessment | None:
    """Return the best profile that runs here and serves the same model, if possible for the same precision."""
    same = [other for other in runnable if _alike(profile, other.profile) and not other.code]
    precise = [other for other in same if other.profile.precision == profile.precision]
    return next(iter(precise or same), None)


def _alike(profile: Profile, other: Profile) -> bool:
    return (other.variant, other.lora, other.mtp) == (profile.variant, profile.lora, profile.mtp)


def _instead(profile: Profile, runnable: Sequence[Assessment], scene: Scene) -> str:
    sibling = _nearest(profile, runnable)
    if sibling is None:
        return ""
    tags = sibling.profile.tags
    conflicting = [wish.variable for wish in scene.wishes.tags if tags.get(wish.tag) != wish.value]
    return f"; here, {by_name(sibling.profile, *conflicting)}"


def _more_of_the_same(found: Assessment, scene: Scene) -> GpuModel | None:
    """Return the machine's own kind of GPU where more of them would do."""
    if found.code not in ("too-few-gpus", "mig"):
        return None
    names = [gpu.name for gpu in scene.system.gpus if gpu.problem is None and gpu.mig_profile is None]
    alike = (gpu for gpu in all_gpus() if gpu.name in names)
    return next((gpu for gpu in alike if _holds(found.profile, gpu, found.smallest_bytes)), None)


def _estimate(profile: Profile, needed: int, known: GpuModel | None = None) -> str:
    """Return the command that plans for a GPU on which the profile runs."""
    gpu = known or _smallest_gpu(profile, needed)
    if gpu is None:
        return "no GPU that is known holds it: take a profile with more GPUs"
    count = profile.tensor_parallel
    return f'see `gemma4-nim estimate --gpu "{count}x{gpu.name}"` for hardware that runs it'


@lru_cache(maxsize=1024)
def _smallest_gpu(profile: Profile, needed: int) -> GpuModel | None:
    fitting = [gpu for gpu in all_gpus() if _holds(profile, gpu, needed)]
    return min(fitting, key=lambda gpu: gpu.memory_mib, default=None)


def _holds(profile: Profile, gpu: GpuModel, needed: int) -> bool:
    support = ability(profile, gpu.compute_capability).support
    best = Support.UNPROVEN if profile.unproven else Support.FALLBACK
    alone = gpu.unified and profile.tensor_parallel > 1
    return support >= best and not alone and gpu.memory_bytes - _headroom(gpu.memory_bytes) >= needed


def _headroom(total: int) -> int:
    return min(USUAL_HEADROOM, total // SMALL_GPU_HEADROOM_SHARE)
