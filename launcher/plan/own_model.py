"""Plans for a model of the user's own: on GPUs where its engine is one for GPUs, else in main memory. Pure.

On GPUs a checkpoint is planned as the profiles of its kind are, with the same estimate, the same choice of GPUs and the
same notes; only its weights are its own. What it is counted as, its shape decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from config.manifest import FileEntry, Manifest, Profile, Workspace, content_id
from config.settings import Settings
from config.variants import TRAINED_CONTEXT, VARIANTS, Variant
from launcher.hardware.system import System
from launcher.memory import ModelShape
from launcher.model import ModelFiles
from launcher.plan.adapters import refuse_adapters
from launcher.plan.assess import CPU_ENGINE
from launcher.plan.devices import usable_gpus
from launcher.plan.planner import Plan, Refusal, make_plan, plan_profile, refuse_context
from launcher.plan.result import Rejection, Verdict

COUNTS: Final = (1, 2, 4, 8)
"""Numbers of GPUs over which a model is spread."""
_PLACE: Final = "file:///checkpoint"
"""Stands for where the weights are: they are here, and nothing is downloaded."""
_REMEDY: Final = "use more GPUs or larger ones, free their memory, or take a checkpoint with quantised weights"


def plan_own_model(settings: Settings, system: System, model: ModelFiles) -> Plan | Refusal:
    """Plan for a model whose files are there."""
    if model.core == CPU_ENGINE or not usable_gpus(system):
        return _in_main_memory(settings, system, model)
    refusal = refuse_adapters(settings, model.core) or refuse_context(settings, model.shape.trained_context)
    if refusal is not None:
        return refusal
    candidates = Manifest(schema_version="2.0.0", profiles=tuple(_profile(model, count, settings) for count in COUNTS))
    plain, engines = _plain(settings, model), frozenset({model.core})
    result = plan_profile(plain, system, candidates, engines)
    unproven = [one for one in result.rejected if one.code == "unproven"] if isinstance(result, Refusal) else []
    if unproven:
        # Whoever names a checkpoint and an engine wants just that, as with a profile that is named.
        named = plain.profile.model_copy(update={"name": unproven[0].profile.id})
        result = plan_profile(plain.model_copy(update={"profile": named}), system, candidates, engines)
    if isinstance(result, Refusal):
        return _in_own_words(result, settings)
    why = model.why if len(result.gpus) == 1 else f"{model.why}; spread over {len(result.gpus)} GPUs"
    return replace(result, names=model.names, why=why, files=model, profile=None, rejected=())


def _in_main_memory(settings: Settings, system: System, model: ModelFiles) -> Plan | Refusal:
    plan, count = make_plan(settings, system, model), settings.profile.tensor_parallel
    if isinstance(plan, Refusal) or count in (None, 1):
        return plan
    note = f"NIM_TENSOR_PARALLEL_SIZE={count} has no effect: {model.core} runs on the processor here"
    return replace(plan, notes=(*plan.notes, note))


def _profile(model: ModelFiles, count: int, settings: Settings) -> Profile:
    """Return the profile that the checkpoint is planned as on so many GPUs."""
    tags = {
        "llm_engine": model.core,
        "model_variant": _variant(model.shape).key,
        "precision": model.precision,
        "profile": "latency",
        "tp": str(count),
        "pp": "1",
        "feat_lora": "false" if settings.adapters.source is None else "true",
        "feat_mtp": "false",
    }
    workspace = Workspace(files={"weights": FileEntry(uri=_PLACE, approximate_size=model.weight_bytes)})
    return Profile(id=content_id(tags, workspace), tags=tags, workspace=workspace)


def _variant(shape: ModelShape) -> Variant:
    """Return the published model of this shape, else the one of its kind: all others are smaller."""
    for variant in VARIANTS:
        if (variant.layers, variant.experts) == (shape.layers, shape.experts):
            return variant
    return next(variant for variant in VARIANTS if bool(variant.experts) == bool(shape.experts))


def _plain(settings: Settings, model: ModelFiles) -> Settings:
    """Return the settings without wishes that are about a choice among models, and with the model's own context."""
    trained = model.shape.trained_context
    longest = settings.model.max_model_len or (trained if trained < TRAINED_CONTEXT else None)
    chosen = {"name": None, "tags": (), "variant": None, "precision": None, "objective": None}
    update = {
        "profile": settings.profile.model_copy(update=chosen),
        "model": settings.model.model_copy(update={"max_model_len": longest, "engine": "auto"}),
    }
    return settings.model_copy(update=update)


def _in_own_words(refusal: Refusal, settings: Settings) -> Refusal:
    """Return a refusal that speaks of the checkpoint instead of the profiles that it was planned as."""
    if not refusal.rejected:
        return refusal

    def distance(one: Rejection) -> tuple[bool, int]:
        return one.verdict is Verdict.INCOMPATIBLE, one.smallest_bytes

    count = settings.profile.tensor_parallel
    meant = [one for one in refusal.rejected if count in (None, one.profile.tensor_parallel)]
    closest = min(meant or refusal.rejected, key=distance)
    return Refusal(f"the checkpoint cannot be served here: {closest.reason}", _REMEDY, code=closest.code)
