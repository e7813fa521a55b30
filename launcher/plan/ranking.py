"""Which engine and precision is right for which GPU, and the order in which profiles that would run are preferred.

``docs/profiles.md`` documents the order for people; a change here is a change there. The facts about engines are those
that were public in November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from config.manifest import Profile
from config.variants import Variant, find_variant

COMFORTABLE_CONTEXT: Final = 131_072
"""Unless a length was asked for, a longer context than this does not make a profile better."""
NATIVE: Final = {"bf16": (8, 0), "fp8": (8, 9), "nvfp4": (10, 0)}
"""Least compute capability whose tensor cores calculate in a precision."""
PREFERENCE: Final = ("bf16", "fp8", "nvfp4")
"""Of the native precisions the smallest is the fastest, so the last one is preferred."""
CPU_PREFERENCE: Final = ("q8_0", "q4_k_m")
EMULATION_TILE: Final = 64
"""Weight-only kernels for experts take widths that are multiples of this."""


class Support(IntEnum):
    """How well an engine runs Gemma 4 on a GPU."""

    NONE = 0
    UNPROVEN = 1
    """Nobody has shown it, or it is known to fail: only when the profile is named."""
    FALLBACK = 2
    """It works by slower kernels."""
    WORKS = 3
    PREFERRED = 4


@dataclass(frozen=True, slots=True)
class Ability:
    """What is known of one profile on one kind of GPU; ``reason`` says why it is less than usual."""

    support: Support
    native: bool
    reason: str = ""


def ability(profile: Profile, capability: tuple[int, int]) -> Ability:
    """Return what is known of running this profile on GPUs of this compute capability."""
    engine = _engine(profile.engine, capability)
    native = capability >= NATIVE.get(profile.precision, (99, 0))
    if engine.support is Support.NONE:
        return Ability(Support.NONE, native, engine.reason)
    if profile.precision not in NATIVE:
        return Ability(Support.NONE, native=False, reason=f"{profile.engine} does not read {profile.precision}")
    if not native and profile.engine != "vllm":
        needed = _dotted(NATIVE[profile.precision])
        reason = f"{profile.precision} needs compute capability {needed}, these GPUs have {_dotted(capability)}"
        return Ability(Support.NONE, native, reason)
    if not native and not _tiles(profile):
        width = find_variant(profile.variant).expert_width // profile.tensor_parallel
        reason = (
            f"without tensor cores for {profile.precision} vLLM's kernels want experts of a width that "
            f"{EMULATION_TILE} divides, and on {profile.tensor_parallel} GPUs each has {width}"
        )
        return Ability(Support.UNPROVEN, native, reason)
    if profile.unproven and engine.support > Support.UNPROVEN:
        return Ability(Support.UNPROVEN, native, profile.unproven)
    return Ability(engine.support, native, engine.reason)


def rank(profile: Profile, found: Ability, context: int, *, linked: bool) -> tuple[int, ...]:
    """Return the order of a profile that would run on GPUs; the largest is chosen. See ``CRITERIA`` for each place.

    Args:
        profile: the profile.
        found: what is known of it on the GPUs that it would take.
        context: tokens that it can serve, at most those that count; 0 when it does not fit and is tried all the same.
        linked: whether these GPUs reach each other by NVLink.
    """
    return (
        1 if context else -1,
        context,
        _precision(profile, native=found.native),
        int(found.support),
        int(profile.objective == "latency"),
        _parallelism(profile, linked=linked),
    )


def rank_on_cpu(profile: Profile, context: int) -> tuple[int, ...]:
    """Return the order of a profile for the CPU engine; ``context`` is 0 when it is tried although it does not fit."""
    precision = CPU_PREFERENCE.index(profile.precision) if profile.precision in CPU_PREFERENCE else -1
    return (0 if context else -2, context, precision, int(Support.WORKS), int(profile.objective == "latency"), 1)


CRITERIA: Final = ("device", "context", "precision", "engine", "objective", "parallelism")
"""What the places of a rank stand for, most important first."""


def useful_parallelism(variant: Variant) -> int:
    """Return the number of GPUs up to which more of them shorten answers.

    Beyond the number of key and value heads of the global layers each GPU would hold copies of the same cache.
    """
    return variant.global_kv_heads


def _engine(engine: str, capability: tuple[int, int]) -> Ability:
    if engine == "vllm":
        if capability < NATIVE["bf16"]:
            reason = f"vLLM serves Gemma 4 in bfloat16, which needs compute capability 8.0, not {_dotted(capability)}"
            return Ability(Support.NONE, native=False, reason=reason)
        return Ability(Support.WORKS, native=True)
    if engine == "tensorrt_llm":
        return _tensorrt_llm(capability)
    return Ability(Support.NONE, native=False, reason=f"{engine} does not run on NVIDIA GPUs here")


def _tensorrt_llm(capability: tuple[int, int]) -> Ability:
    if capability in ((10, 0), (10, 3)):
        return Ability(Support.PREFERRED, native=True)
    if capability in ((12, 0), (12, 1)):
        reason = "TensorRT-LLM runs Gemma 4 here with fallback kernels only (NVIDIA/TensorRT-LLM#17557)"
        return Ability(Support.FALLBACK, native=True, reason=reason)
    if capability >= NATIVE["bf16"]:
        reason = (
            "TensorRT-LLM was not shown to run Gemma 4 on compute capability "
            f"{_dotted(capability)} (NVIDIA/TensorRT-LLM#18032, #14942)"
        )
        return Ability(Support.UNPROVEN, native=True, reason=reason)
    reason = f"TensorRT-LLM needs compute capability 8.0, not {_dotted(capability)}"
    return Ability(Support.NONE, native=False, reason=reason)


def _precision(profile: Profile, *, native: bool) -> int:
    # Emulated precisions save memory, not time: the one closest to the original weights comes first.
    place = PREFERENCE.index(profile.precision)
    return 10 + place if native else len(PREFERENCE) - place


def _tiles(profile: Profile) -> bool:
    width = find_variant(profile.variant).expert_width
    return width % (profile.tensor_parallel * EMULATION_TILE) == 0


def _parallelism(profile: Profile, *, linked: bool) -> int:
    count = profile.tensor_parallel
    useful = linked and count <= useful_parallelism(find_variant(profile.variant))
    return count if profile.objective == "latency" and useful else 1 - count


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
