"""The plan for a bundle, and what its engine's process is given.

A bundle for a GPU engine was warmed up with its limits on the same kind of GPU, so its memory is not estimated again:
the GPUs must have free what the engine was started with. Bundles for llama.cpp are planned like any GGUF model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from config.settings import Settings
from engine_build.caches import CACHES, cache_variables
from engine_build.frozen_arguments import CHECKPOINT
from engine_build.manifest import Manifest, read_manifest
from launcher.bundle.machine import gpus_for
from launcher.bundle.serving import matching_manifest
from launcher.hardware.system import Gpu, System
from launcher.memory import MemoryEstimate, gib
from launcher.model import ModelFiles, find_model
from launcher.plan.planner import Plan, Refusal, make_plan
from launcher.plan.transport import read_transport


def bundle_plan(folder: Path, settings: Settings, system: System) -> Plan | Refusal:
    """Return the plan for a bundle, if it was made for this machine and its GPUs are free.

    Raises:
        LaunchError: it was made for something else, or is damaged; each difference is named.
    """
    manifest = matching_manifest(folder, settings, system)
    model = _files(folder, manifest, settings)
    if manifest.fingerprint.engine == "llama_cpp":
        return make_plan(settings, system, model)
    return _gpu_plan(manifest, model, settings, system)


def engine_variables(plan: Plan, place: Path) -> dict[str, str]:
    """Return what the process of a bundle's engine gets in its environment; its caches are copied to ``place``.

    Engines write into their caches, and a bundle must stay as it was built.
    """
    bundle = plan.model.bundle
    if bundle is None:
        return {}
    engine = read_manifest(bundle).fingerprint.engine
    variables = cache_variables(engine, place)
    if variables and (bundle / CACHES).is_dir():
        shutil.copytree(bundle / CACHES, place, dirs_exist_ok=True)
    return variables


def engine_fields(bundle: Path) -> dict[str, object]:
    """Return the fields of ``EngineRuntime`` that a bundle settles."""
    manifest = read_manifest(bundle)
    return {
        "bundle_path": bundle,
        "precision": manifest.fingerprint.precision,
        "tensor_parallel": manifest.limits.tensor_parallel,
        "gpu_memory_fraction": manifest.limits.gpu_memory_fraction,
    }


def _files(folder: Path, manifest: Manifest, settings: Settings) -> ModelFiles:
    source = manifest.source.path
    place = folder / (CHECKPOINT if source is None else source)
    changes = {"path": place, "uri": None, "engine": manifest.fingerprint.engine}
    model = find_model(settings.model.model_copy(update=changes))
    return replace(
        model,
        names=settings.model.served_names or manifest.names,
        why=f"the engine bundle {manifest.bundle_id}",
        bundle=None if manifest.fingerprint.engine == "llama_cpp" else folder,
    )


def _gpu_plan(manifest: Manifest, model: ModelFiles, settings: Settings, system: System) -> Plan | Refusal:
    limits = manifest.limits
    gpus = gpus_for(manifest.fingerprint.hardware, limits.tensor_parallel, system)
    refusal = _too_much_asked(manifest, settings) or _too_little_free(manifest, settings, gpus)
    if refusal is not None:
        return refusal
    share = model.weight_bytes // max(len(gpus), 1)
    budget = min((_needed(gpu, manifest) for gpu in gpus), default=share)
    context = settings.model.max_model_len or limits.context_tokens
    return Plan(
        names=model.names,
        host=settings.server.host,
        port=settings.server.port,
        core=manifest.fingerprint.engine,
        context_tokens=context,
        wanted_context=context,
        max_sequences=settings.engine.max_num_seqs or limits.max_sequences,
        full_sequences=1,
        max_queued=settings.engine.max_queued,
        threads=system.cores,
        memory=MemoryEstimate(weights=share, cache=max(budget - share, 0)),
        memory_available=min((gpu.memory_free for gpu in gpus), default=None),
        memory_budget=budget,
        why=model.why,
        notes=(),
        files=model,
        gpus=gpus,
        transport=read_transport(settings),
    )


def _too_much_asked(manifest: Manifest, settings: Settings) -> Refusal | None:
    limits = manifest.limits
    if settings.adapters.source is not None:
        reason = "NIM_PEFT_SOURCE is set, and the engine bundle was built and measured without adapters"
        return Refusal(reason, "start vLLM from its checkpoint (NIM_MODEL_PATH), or unset NIM_PEFT_SOURCE")
    for name, wanted, most in (
        ("NIM_MAX_MODEL_LEN", settings.model.max_model_len, limits.context_tokens),
        ("NIM_MAX_NUM_SEQS", settings.engine.max_num_seqs, limits.max_sequences),
    ):
        if wanted is not None and wanted > most:
            reason = f"{name}={wanted} is more than the {most} that the bundle was built for"
            return Refusal(reason, f"set it to {most} or less, or build a bundle with it")
    return None


def _too_little_free(manifest: Manifest, settings: Settings, gpus: Sequence[Gpu]) -> Refusal | None:
    if settings.launch.relax_memory:
        return None
    for gpu in gpus:
        needed = _needed(gpu, manifest)
        if gpu.memory_free < needed:
            reason = f"{gpu.name} has {gib(gpu.memory_free)} free, and the bundle was built with {gib(needed)}"
            remedy = "stop what else uses it, or build a bundle with a smaller NIM_GPU_MEMORY_UTILIZATION"
            return Refusal(reason, remedy, code="memory")
    return None


def _needed(gpu: Gpu, manifest: Manifest) -> int:
    return int(manifest.limits.gpu_memory_fraction * gpu.memory_total)
