"""Settings that are known and well formed, and that a start has no use for because of what else is set.

Nothing that a user sets is ignored in silence: each gets a line, which ``NIM_STRICT_CONFIG`` turns into a refusal.
Names that are no settings at all are ``config.settings_verdicts``' matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from config.settings import Settings, sections
from config.variants import PROFILES
from launcher.commands.choice import may_be_bundle

_AMONG_PROFILES: Final = ("NIM_MODEL_VARIANT", "NIM_MODEL_PRECISION", "NIM_PERF_PROFILE", "NIM_TAGS_SELECTOR")
"""Wishes of a choice among the manifest's profiles."""
_OF_AN_ENGINE: Final = (
    *_AMONG_PROFILES, "NIM_ENGINE", "NIM_ENGINE_BUNDLE", "NIM_ENGINE_THREADS", "NIM_GPU_MEMORY_HEADROOM_GIB",
    "NIM_GPU_MEMORY_UTILIZATION", "NIM_MAX_MODEL_LEN", "NIM_MAX_NUM_SEQS", "NIM_MAX_QUEUED", "NIM_MEMORY_GUARD_GIB",
    "NIM_MMPROJ_PATH", "NIM_RELAX_MEM_CONSTRAINTS", "NIM_STRICT_FIT", "NIM_TENSOR_PARALLEL_SIZE",
    "NIM_UNIFIED_MEMORY_HOST_RESERVE_GIB",
)  # fmt: skip
"""What whoever starts an engine decides."""


def unused_settings(settings: Settings, given: Collection[str]) -> Iterator[str]:
    """Yield one line for each variable of ``given`` that this start has no use for."""
    for name, reason in _rules(settings):
        if name in given:
            yield f"{name} has no effect: {reason}"


def _rules(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.adapters.source is None:
        reason = "it is for LoRA adapters, and NIM_PEFT_SOURCE names none"
        yield from ((name, reason) for name in _names("adapters") if name != "NIM_PEFT_SOURCE")
    triton = [name for name in _names("transport") if name != "NIM_ENGINE_TRANSPORT"]
    if settings.remote.endpoints:
        reason = "NIM_ENGINE_ENDPOINTS names engines that are started elsewhere, with settings of their own"
        yield from ((name, reason) for name in (*_OF_AN_ENGINE, *triton))
        return
    yield from (
        (name, "it is for engines elsewhere, and NIM_ENGINE_ENDPOINTS names none")
        for name in _names("remote")
        if name != "NIM_ENGINE_ENDPOINTS"
    )
    if settings.transport.kind != "triton":
        yield from ((name, "it is for Triton, which NIM_ENGINE_TRANSPORT=triton takes") for name in triton)
    yield from _of_an_own_model(settings)


def _of_an_own_model(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what is for a choice among profiles where the model is named and nothing is left to choose."""
    model, profile = settings.model, settings.profile
    named = {
        "NIM_MODEL_PATH": model.path, "NIM_MODEL_URI": model.uri, "NIM_ENGINE_BUNDLE": settings.build.bundle,
    }  # fmt: skip
    by = next((name for name, value in named.items() if value is not None), None)
    if by is not None:
        yield "NIM_MODEL_PROFILE", f"{by} names the model"
    elif profile.name in PROFILES:
        by = f"NIM_MODEL_PROFILE={profile.name}"
    if by is not None:
        reason = f"it is for a choice among profiles, and {by} names the model"
        # A bundle is compared with the precision that is asked for.
        kept = "NIM_MODEL_PRECISION" if may_be_bundle(settings) else ""
        yield from ((name, reason) for name in _AMONG_PROFILES if name != kept)


def _names(section: str) -> list[str]:
    return [str(field.alias) for field in sections()[section].model_fields.values()]
