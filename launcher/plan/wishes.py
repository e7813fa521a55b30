"""What the settings ask of a plan, in the terms in which profiles are chosen.

``read_wishes`` is the only place of the planning that knows which variable says what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from config.settings import Settings
from launcher.plan.adapters import SOURCE

GIB: Final = 2**30
USUAL_HEADROOM: Final = 2 * GIB
SMALL_GPU_HEADROOM_SHARE: Final = 24
"""Unless it is set, the headroom is at most this fraction of a GPU: 1 of 24 GiB, 2 GiB from 48 GiB on."""


@dataclass(frozen=True, slots=True)
class TagWish:
    """A tag that the profile must have, and the variable that says so."""

    tag: str
    value: str
    variable: str


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for; None and empty mean that it is left to the plan.

    Attributes:
        profile: an id, the beginning of one, or a name.
        context: tokens of one request.
        sequences: requests at the same time.
        strict_fit: refuse rather than serve a shorter context than wanted.
        relax_memory: start even when the estimate says that memory does not suffice.
        utilization: share of a GPU's whole memory that may be used.
        headroom: bytes of each GPU that stay free; None for the usual amount.
        host_reserve: bytes that stay for the system where GPU and processor share memory.
        cuda_graphs: whether they may be captured.
        lora_rank: largest rank of an adapter as memory is set aside for it; None for what the profile says.
        lora_slots: adapters on a GPU at the same time.
    """

    profile: str | None = None
    tags: tuple[TagWish, ...] = ()
    context: int | None = None
    sequences: int | None = None
    strict_fit: bool = False
    relax_memory: bool = False
    utilization: float | None = None
    headroom: int | None = None
    host_reserve: int = 16 * GIB
    cuda_graphs: bool = True
    lora_rank: int | None = None
    lora_slots: int = 8


def read_wishes(settings: Settings) -> Wishes:
    """Collect what the settings ask for."""
    profile, memory = settings.profile, settings.memory
    tags = [TagWish(name, value, "NIM_TAGS_SELECTOR") for name, value in profile.tags]
    engine = settings.model.engine
    for tag, value, variable in (
        ("llm_engine", None if engine == "auto" else engine, "NIM_ENGINE"),
        ("model_variant", profile.variant, "NIM_MODEL_VARIANT"),
        ("precision", profile.precision, "NIM_MODEL_PRECISION"),
        ("profile", profile.objective, "NIM_PERF_PROFILE"),
        ("tp", profile.tensor_parallel, "NIM_TENSOR_PARALLEL_SIZE"),
    ):
        if value is not None:
            tags.append(TagWish(tag, str(value), variable))
    adapters = settings.adapters
    if adapters.source is not None:
        tags.append(TagWish("feat_lora", "true", SOURCE))
    headroom = int(memory.gpu_headroom_gib * GIB) if "gpu_headroom_gib" in memory.model_fields_set else None
    return Wishes(
        profile=profile.name,
        tags=tuple(tags),
        context=settings.model.max_model_len,
        sequences=settings.engine.max_num_seqs,
        strict_fit=profile.strict_fit,
        relax_memory=settings.launch.relax_memory,
        utilization=memory.gpu_utilization,
        headroom=headroom,
        host_reserve=int(memory.host_reserve_gib * GIB),
        lora_rank=adapters.slot_rank if "max_rank" in adapters.model_fields_set else None,
        lora_slots=adapters.max_gpu,
    )
