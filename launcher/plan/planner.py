"""Decides what is started and how: settings and facts in, an immutable plan or a refusal out.

Pure: no file, no clock, no process. ``--dry-run`` prints its result, ``launcher.supervision`` carries it out. A model
of the user's own is planned as it is; without one, the best profile of the manifest is chosen, see docs/profiles.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from config.manifest import Manifest
from config.settings import Settings
from launcher.hardware.system import System
from launcher.memory import estimate_memory as _estimate_memory
from launcher.memory import gib
from launcher.model import ModelFiles
from launcher.plan.adapters import name_adapters, refuse_adapters, wanted_adapters
from launcher.plan.assess import Assessment, Scene, missing_feature, served_names
from launcher.plan.choose import choose
from launcher.plan.fit import (
    CPU_SEQUENCES,
    MEMORY_SHARE,
    SMALLEST_CONTEXT,
    CpuFit,
    GpuFit,
    cpu_choices,
    fit_cpu,
    wanted_context,
)
from launcher.plan.reasons import cpu_notes, fault_notes, gpu_notes, why_chosen
from launcher.plan.result import Plan, Refusal, Rejection, Verdict
from launcher.plan.selection import select
from launcher.plan.transport import read_transport
from launcher.plan.wishes import Wishes, read_wishes

__all__ = [
    "MEMORY_SHARE", "SMALLEST_CONTEXT", "Plan", "Refusal", "Rejection", "Verdict", "gib", "make_plan", "plan_profile",
]  # fmt: skip

DEFAULT_SEQUENCES: Final = CPU_SEQUENCES["throughput"]
NO_TOWER: Final = "no vision tower was found, so pictures are refused; put mmproj*.gguf beside the model"


def make_plan(settings: Settings, system: System, model: ModelFiles) -> Plan | Refusal:
    """Plan for a model whose files are there: context, sequences and threads such that it fits this machine."""
    unloadable = refuse_adapters(settings, model.core)
    if unloadable is not None:
        return unloadable
    wishes = read_wishes(settings)
    too_long = refuse_context(settings, model.shape.trained_context)
    if too_long is not None:
        return too_long
    missing = missing_feature(system)
    if missing:
        return Refusal(missing, "run on a processor with AVX2", code="cpu")
    fit = fit_cpu(model.shape, model.weight_bytes, system.memory_available, wishes, DEFAULT_SEQUENCES)
    if fit.context == 0:
        return _too_little_memory(wishes, system, model)
    usual = next(cpu_choices(model.shape, wishes, DEFAULT_SEQUENCES))
    plan = _cpu_plan(settings, system, fit, usual)
    blind = () if model.projector is not None or model.checkpoint is not None else (NO_TOWER,)
    plan = replace(plan, names=model.names, core=model.core, why=model.why, notes=plan.notes + blind, files=model)
    return replace(plan, adapters=wanted_adapters(settings))


def refuse_context(settings: Settings, trained: int) -> Refusal | None:
    """Return why a context that was asked for is too long for the model; None when it is not."""
    asked = settings.model.max_model_len
    if asked is None or asked <= trained:
        return None
    return Refusal(
        f"NIM_MAX_MODEL_LEN={asked} is more than the {trained} tokens that the model was made for",
        f"set NIM_MAX_MODEL_LEN to {trained} or less, or leave it unset",
    )


def plan_profile(settings: Settings, system: System, manifest: Manifest, engines: frozenset[str]) -> Plan | Refusal:
    """Choose the best profile of the manifest for this machine, with a reason and a remedy for each other one.

    Args:
        settings: what was asked for.
        system: what there is.
        manifest: the profiles.
        engines: the engines that this image holds: ``llama_cpp``, ``vllm``, ``tensorrt_llm``.
    """
    wishes = read_wishes(settings)
    too_long = refuse_context(settings, wanted_context(Wishes(), on_gpu=True))
    if too_long is not None:
        return too_long
    selection = select(manifest, wishes)
    if isinstance(selection, Refusal):
        return selection
    scene = Scene(system, engines, wishes)
    result = choose(manifest, scene, selection)
    if isinstance(result, Refusal):
        return name_adapters(result, settings)
    chosen, rejected = result.chosen, result.rejected
    why = why_chosen(result, scene, named=selection.full)
    if chosen.gpu is not None:
        return _gpu_plan(settings, scene, (chosen, chosen.gpu), rejected, why)
    if chosen.cpu is None:
        raise AssertionError("a runnable profile runs on GPUs or on the CPU")
    usual = (
        wanted_context(wishes, on_gpu=False),
        wishes.sequences or CPU_SEQUENCES.get(chosen.profile.objective, 1),
    )
    plan = _cpu_plan(settings, system, chosen.cpu, usual)
    return replace(
        plan,
        notes=(*plan.notes, *fault_notes(scene)),
        names=settings.model.served_names or served_names(chosen.profile),
        why=why,
        profile=chosen.profile,
        rejected=rejected,
    )


def _gpu_plan(
    settings: Settings, scene: Scene, chosen: tuple[Assessment, GpuFit], rejected: tuple[Rejection, ...], why: str
) -> Plan:
    found, fit = chosen
    return Plan(
        names=settings.model.served_names or served_names(found.profile),
        host=settings.server.host,
        port=settings.server.port,
        core=found.profile.engine,
        context_tokens=fit.context,
        wanted_context=wanted_context(scene.wishes, on_gpu=True),
        max_sequences=fit.load.sequences,
        full_sequences=fit.full_sequences,
        max_queued=settings.engine.max_queued,
        threads=scene.system.cores,
        memory=fit.memory,
        memory_available=fit.devices.free,
        memory_budget=fit.devices.budget,
        why=why,
        notes=tuple(gpu_notes(found, fit, scene)),
        batch_tokens=fit.load.batch_tokens,
        cuda_graphs=fit.load.graphs,
        profile=found.profile,
        gpus=fit.devices.gpus,
        rejected=rejected,
        transport=read_transport(settings),
        adapters=wanted_adapters(settings),
    )


def _cpu_plan(settings: Settings, system: System, fit: CpuFit, usual: tuple[int, int]) -> Plan:
    """Return the part of a plan that all models for the CPU engine share; ``usual`` is (context, sequences)."""
    available = system.memory_available
    return Plan(
        names=settings.model.served_names,
        host=settings.server.host,
        port=settings.server.port,
        core="llama_cpp",
        context_tokens=fit.context,
        wanted_context=usual[0],
        max_sequences=fit.sequences,
        full_sequences=fit.sequences,
        max_queued=settings.engine.max_queued,
        # One core is left for the API: spinning compute threads that have to share a core slow down a hundredfold.
        threads=settings.engine.threads or max(system.cores - 1, 1),
        memory=fit.memory,
        memory_available=available,
        memory_budget=None if available is None else int(available * MEMORY_SHARE),
        why="",
        notes=(*cpu_notes(fit, usual, available), *_thread_notes(settings, system)),
        transport=read_transport(settings),
    )


def _thread_notes(settings: Settings, system: System) -> Iterator[str]:
    if settings.engine.threads is not None and settings.engine.threads > system.cores:
        yield f"NIM_ENGINE_THREADS={settings.engine.threads} is more than the {system.cores} cores here: slow"


def _too_little_memory(wishes: Wishes, system: System, model: ModelFiles) -> Refusal:
    context, sequences = list(cpu_choices(model.shape, wishes, DEFAULT_SEQUENCES))[-1]
    need = _estimate_memory(model.shape, model.weight_bytes, context, sequences).total
    fixed = [
        name
        for name, value in (
            ("NIM_MAX_MODEL_LEN", wishes.context if wishes.strict_fit else None),
            ("NIM_MAX_NUM_SEQS", wishes.sequences),
        )
        if value is not None
    ]
    advice = f"lower {' or '.join(fixed)}, or " if fixed else ""
    advice += "set NIM_STRICT_FIT=0, or " if wishes.strict_fit else ""
    return Refusal(
        f"too little memory: {sequences} x {context} tokens of this model need about {gib(need / MEMORY_SHARE)}, "
        f"and {gib(system.memory_available or 0)} are available",
        f"{advice}use a smaller model or quantisation, or free memory; NIM_RELAX_MEM_CONSTRAINTS=1 tries all the same",
        code="memory",
    )
