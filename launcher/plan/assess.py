"""Judges one profile after the other against the hardware: would it run, with which context, and if not, why not.

What the settings ask for beyond memory, and which of the runnable profiles is best, is decided afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from config.manifest import Profile
from config.variants import VARIANTS, find_variant
from launcher.hardware.system import System
from launcher.memory import MemoryEstimate, ModelShape, estimate_memory, gib, variant_shape
from launcher.memory_gpu import estimate_gpu
from launcher.plan.devices import Devices, device_sets, kinds, usable_gpus
from launcher.plan.fit import (
    CPU_SEQUENCES,
    MEMORY_SHARE,
    SMALLEST_CONTEXT,
    CpuFit,
    GpuFit,
    fit_cpu,
    fit_gpu,
    frugal_loads,
    wanted_context,
)
from launcher.plan.ranking import COMFORTABLE_CONTEXT, Ability, Support, ability, rank, rank_on_cpu
from launcher.plan.result import Verdict
from launcher.plan.wishes import Wishes

CPU_ENGINE = "llama_cpp"
_SHAPES = {variant.key: variant_shape(variant) for variant in VARIANTS}


@dataclass(frozen=True, slots=True)
class Assessment:
    """What became of one profile on this hardware.

    Attributes:
        verdict: whether it would run; ``RUNNABLE`` means that ``rank`` is set.
        code: short name of the reason why it would not, or would only when named.
        reason: the same in a sentence.
        rank: its place among those that would run; the largest is best.
        support: how well its engine runs there.
        required_bytes: for the wanted context, see ``Rejection``.
        smallest_bytes: for the smallest context.
    """

    profile: Profile
    verdict: Verdict
    required_bytes: int
    smallest_bytes: int
    code: str = ""
    reason: str = ""
    rank: tuple[int, ...] = ()
    support: Support = Support.NONE
    ability: Ability | None = None
    gpu: GpuFit | None = None
    cpu: CpuFit | None = None

    @property
    def context(self) -> int:
        """Return the tokens that a request could have, 0 when it would not run."""
        if self.gpu is not None:
            return self.gpu.context
        return self.cpu.context if self.cpu is not None else 0


@dataclass(frozen=True)
class Scene:
    """Everything that assessments share: the machine, the engines in this image, and the wishes."""

    system: System
    engines: frozenset[str]
    wishes: Wishes
    _sets: dict[int, tuple[Devices, ...]] = field(default_factory=dict)

    def devices(self, count: int) -> tuple[Devices, ...]:
        """Return the sets of so many GPUs, worked out once."""
        if count not in self._sets:
            self._sets[count] = device_sets(self.system, count, self.wishes)
        return self._sets[count]

    @cached_property
    def kinds(self) -> str:
        """Return the usable GPUs in words."""
        groups = [f"{len(group)} x {group[0].name}" for group in kinds(self.system)]
        return " and ".join(groups) if groups else "none"


def assess(profile: Profile, scene: Scene) -> Assessment:
    """Judge a profile by engine, hardware and memory."""
    if profile.engine == CPU_ENGINE:
        return _assess_cpu(profile, scene)
    needs = requirements(profile, scene.wishes)

    def no(verdict: Verdict, code: str, reason: str) -> Assessment:
        return Assessment(profile, verdict, *needs, code, reason)

    if profile.engine not in scene.engines:
        return no(Verdict.INCOMPATIBLE, "engine-missing", f"the engine {profile.engine} is not in this image")
    if profile.pipeline_parallel != 1:
        return no(Verdict.INCOMPATIBLE, "pipeline", "Gemma 4 is not split into pipelines: pp must be 1")
    sets = scene.devices(profile.tensor_parallel)
    if not sets:
        return no(Verdict.INCOMPATIBLE, *_too_few(profile, scene))
    able = [(devices, ability(profile, devices.capability)) for devices in sets]
    if all(found.support is Support.NONE for _, found in able):
        return no(Verdict.INCOMPATIBLE, "capability", able[0][1].reason)
    fits = [(fit_gpu(profile, devices, scene.wishes), found) for devices, found in able if found.support > Support.NONE]
    return _best(profile, fits, needs, scene.wishes)


def requirements(profile: Profile, wishes: Wishes) -> tuple[int, int]:
    """Return the bytes that the profile needs for the wanted context and for the smallest one.

    They count for each GPU, or for the CPU engine in main memory.
    """
    if profile.engine == CPU_ENGINE:
        shape, sequences = _SHAPES[profile.variant], wishes.sequences or CPU_SEQUENCES.get(profile.objective, 1)
        wanted = wanted_context(wishes, on_gpu=False)
        return (
            _main_memory(shape, profile, wanted, sequences),
            _main_memory(shape, profile, min(SMALLEST_CONTEXT, wanted), wishes.sequences or 1),
        )
    usual, least = frugal_loads(profile, wishes)
    wanted = min(wanted_context(wishes, on_gpu=True), wishes.context or COMFORTABLE_CONTEXT)
    return estimate_gpu(usual, wanted).total, estimate_gpu(least, min(SMALLEST_CONTEXT, wanted)).total


def _best(profile: Profile, fits: list[tuple[GpuFit, Ability]], needs: tuple[int, int], wishes: Wishes) -> Assessment:
    wanted = wanted_context(wishes, on_gpu=True)
    enough = [
        (fit, found)
        for fit, found in fits
        if fit.context > 0 and (fit.context >= wanted or not wishes.strict_fit or wishes.relax_memory)
    ]
    if not enough:
        fit, found = max(fits, key=lambda pair: (pair[1].support, pair[0].devices.budget))
        code = "strict-fit" if fit.context > 0 else "memory"
        reason = _memory_reason(profile, fit, wanted, needs)
        return Assessment(profile, Verdict.LOW_MEMORY, *needs, code, reason, support=found.support, gpu=fit)
    ranked = [
        (
            (int(found.support > Support.UNPROVEN), *rank(profile, found, fit.counted, linked=fit.devices.linked)),
            fit.devices.budget, index,
        )
        for index, (fit, found) in enumerate(enough)
    ]  # fmt: skip
    order, _, index = max(ranked, key=lambda item: (item[0], item[1], -item[2]))
    fit, found = enough[index]
    code = "unproven" if found.support is Support.UNPROVEN else ""
    return Assessment(
        profile,
        Verdict.RUNNABLE,
        *needs,
        code,
        found.reason if code else "",
        rank=order[1:],
        support=found.support,
        ability=found,
        gpu=fit,
    )


def _memory_reason(profile: Profile, fit: GpuFit, wanted: int, needs: tuple[int, int]) -> str:
    gpus = fit.devices.gpus
    where = gpus[0].name if len(gpus) == 1 else f"each of {len(gpus)} x {gpus[0].name}"
    may = f"{gib(fit.devices.budget)} may be used of {where} ({gib(fit.devices.free)} free)"
    if fit.context > 0:
        return f"only {fit.largest} of the wanted {wanted} tokens fit, and NIM_STRICT_FIT=1: {may}"
    context = min(SMALLEST_CONTEXT, wanted)
    return f"the {profile.variant} in {profile.precision} needs {gib(needs[1])} even for {context} tokens, and {may}"


def _too_few(profile: Profile, scene: Scene) -> tuple[str, str]:
    count = profile.tensor_parallel
    if not scene.system.gpus:
        return "no-gpu", f"{profile.engine} needs an NVIDIA GPU, and none was found"
    usable = usable_gpus(scene.system)
    if not usable:
        problem = scene.system.gpus[0].problem
        return "gpu-problem", f"no GPU can be used: {problem.what if problem else 'unknown'}"
    if all(gpu.mig_profile for gpu in usable) and count > 1:
        return "mig", f"it needs {count} GPUs together, and MIG slices cannot work together"
    return "too-few-gpus", f"it needs {count} usable GPUs of one kind, and there are {scene.kinds}"


def _assess_cpu(profile: Profile, scene: Scene) -> Assessment:
    shape, wishes = _SHAPES[profile.variant], scene.wishes
    sequences = wishes.sequences or CPU_SEQUENCES.get(profile.objective, 1)
    wanted = wanted_context(wishes, on_gpu=False)
    required, smallest = requirements(profile, wishes)
    if CPU_ENGINE not in scene.engines:
        reason = f"the engine {profile.engine} is not in this image"
        return Assessment(profile, Verdict.INCOMPATIBLE, required, smallest, "engine-missing", reason)
    missing = missing_feature(scene.system)
    if missing:
        return Assessment(profile, Verdict.INCOMPATIBLE, required, smallest, "cpu", missing)
    available = scene.system.memory_available
    fit = fit_cpu(shape, profile.download_size, available, wishes, sequences)
    if fit.context == 0:
        reason = (
            f"{profile.precision} weights of the {profile.variant} need {gib(smallest)} of main memory for "
            f"{min(SMALLEST_CONTEXT, wanted)} tokens, and {gib(available or 0)} are available"
        )
        return Assessment(profile, Verdict.LOW_MEMORY, required, smallest, "memory", reason, cpu=fit)
    fits = available is None or fit.memory.total <= available * MEMORY_SHARE
    order = rank_on_cpu(profile, fit.context if fits else 0)
    return Assessment(profile, Verdict.RUNNABLE, required, smallest, rank=order, support=Support.WORKS, cpu=fit)


def missing_feature(system: System) -> str:
    """Return why this processor cannot run the CPU engine; empty when it can, or when that cannot be told."""
    # "sse2" is in every 64-bit x86 processor and in no other; without any entry nothing is known.
    if "sse2" in system.cpu_features and "avx2" not in system.cpu_features:
        return f"llama.cpp's library needs AVX2, which {system.cpu_model} lacks"
    return ""


def _main_memory(shape: ModelShape, profile: Profile, context: int, sequences: int) -> int:
    estimate: MemoryEstimate = estimate_memory(shape, profile.download_size, context, sequences)
    return int(estimate.total / MEMORY_SHARE)


def served_names(profile: Profile) -> tuple[str, ...]:
    """Return the names under which a profile's model is served unless others are set."""
    return find_variant(profile.variant).names
