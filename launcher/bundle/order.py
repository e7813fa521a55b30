"""What is to be built: from a profile of the manifest, or from a folder, to a checkpoint on this machine and limits.

Files that are missing are fetched into the cache first. What then has to be done is decided by ``engine_build``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast, get_args

from config.manifest import Profile
from config.settings import Settings
from config.variants import PROFILES, published_names
from engine_build.checkpoint_facts import PLAIN, CheckpointFacts
from engine_build.errors import EngineBuildError
from engine_build.fingerprint import Engine, Hardware
from engine_build.limits import Limits
from engine_build.model_config import load_model_config
from launcher.bundle.machine import gpus_for, hardware_of
from launcher.commands.choice import Scenery, accepted, find_profile, profile_plan, wants_profile, with_settings
from launcher.commands.engines import GPU_ENGINES, LIBRARIES
from launcher.commands.fetching import fetch_profile
from launcher.download.progress import Progress
from launcher.errors import ExitCode, LaunchError
from launcher.hardware.system import Gpu
from launcher.model import demo_folder
from launcher.plan.estimate import imagined_system
from launcher.plan.planner import Plan

TRIAL_CONTEXT: Final = 4096
"""Tokens of a sequence while the CPU engine is tried out; a server chooses its own."""
TRIAL_SEQUENCES: Final = 8
GPU_CONTEXT: Final = 32_768
"""For a checkpoint that no profile describes."""
GPU_SEQUENCES: Final = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed; None and empty leave it to the launcher.

    Attributes:
        profile: id, the beginning of one, or name, of a profile or a demo model.
        folder: a checkpoint in Hugging Face layout.
        gpus: the target's, such as ``2xB200``, where it is not this machine.
    """

    profile: str | None = None
    folder: Path | None = None
    engine: str | None = None
    precision: str | None = None
    tensor_parallel: int | None = None
    gpus: str = ""
    reference: Path | None = None
    prebuild_only: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built, with everything at hand.

    Attributes:
        precision: None takes what the checkpoint has.
        hardware: None where the target is not known.
        gpus: those that the engine is tried out on; empty for the CPU engine, and where the target is another machine.
        unquantised: the profile with the unquantised weights, for the gate; fetched only if they are needed.
    """

    checkpoint: Path
    engine: Engine
    precision: str | None
    limits: Limits
    names: tuple[str, ...]
    hardware: Hardware | None
    gpus: tuple[Gpu, ...] = ()
    unquantised: Profile | None = None


def take_order(scenery: Scenery, wanted: Wanted, progress: Progress) -> Order:
    """Settle what is to be built, and fetch its checkpoint if it is not here.

    Raises:
        LaunchError: it is not known, does not fit this machine, or cannot be fetched.
        ConfigError: a GPU or a setting is not known.
    """
    if wanted.folder is not None and wanted.profile is not None:
        raise LaunchError(ExitCode.BAD_SETTINGS, "a profile and --from exclude each other", "give one of them")
    scenery = _there(scenery, wanted)
    folder = wanted.folder.expanduser() if wanted.folder is not None else _demo(scenery, wanted)
    if folder is not None:
        return _from_folder(scenery, wanted, folder)
    return _from_profile(scenery, wanted, progress)


def chosen_precision(order: Order, facts: CheckpointFacts) -> str:
    """Return the precision to build in: what was asked for, else what the checkpoint has."""
    if order.precision is not None:
        return order.precision
    if facts.quantisation != PLAIN:
        return facts.quantisation
    return facts.stored if order.engine == "llama_cpp" else "bf16"


def _there(scenery: Scenery, wanted: Wanted) -> Scenery:
    """Return the scenery of the target where that is another machine, and with all engines where none is needed."""
    if not wanted.prebuild_only:
        if wanted.gpus:
            message = "--gpu names a machine that is not here, so only the first half can be done"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "add --prebuild-only")
        return scenery
    engines = frozenset(LIBRARIES)
    if not wanted.gpus:
        return replace(scenery, engines=engines)
    return replace(scenery, engines=engines, system=imagined_system(wanted.gpus))


def _engine(name: str | None, scenery: Scenery) -> Engine:
    if name is not None and name not in get_args(Engine):
        message = f"--engine {name!r} is no engine"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, f"use {', '.join(get_args(Engine))}")
    usable = [gpu for gpu in scenery.system.gpus if gpu.problem is None]
    found = name or next((one for one in ("tensorrt_llm", "vllm") if one in scenery.engines and usable), "llama_cpp")
    return cast("Engine", found)


def _demo(scenery: Scenery, wanted: Wanted) -> Path | None:
    name = wanted.profile or scenery.settings.profile.name
    if name in PROFILES:
        return demo_folder() / name
    # As a start would: whoever says nothing about profiles gets no download of many gigabytes.
    if wanted.profile is None and not wants_profile(scenery) and wanted.engine not in GPU_ENGINES:
        return demo_folder() / PROFILES[0]
    return None


def _from_folder(scenery: Scenery, wanted: Wanted, folder: Path) -> Order:
    engine = _engine(wanted.engine, scenery)
    settings = scenery.settings
    parallel = wanted.tensor_parallel or settings.profile.tensor_parallel or 1
    try:
        config = load_model_config(folder).text_config
    except EngineBuildError as error:
        raise LaunchError(ExitCode.CANNOT_START, error.message, "name a folder with a checkpoint") from error
    is_cpu = engine == "llama_cpp"
    context = settings.model.max_model_len or (TRIAL_CONTEXT if is_cpu else GPU_CONTEXT)
    limits = Limits(
        context_tokens=min(context, config.max_position_embeddings),
        max_sequences=settings.engine.max_num_seqs or (TRIAL_SEQUENCES if is_cpu else GPU_SEQUENCES),
        tensor_parallel=parallel,
        gpu_memory_fraction=settings.memory.gpu_utilization or 0.9,
    )
    published = published_names(config.num_hidden_layers, config.num_experts or 0 if config.enable_moe_block else 0)
    names = settings.model.served_names or published or (folder.resolve().name,)
    gpus = () if is_cpu else gpus_for(None, parallel, scenery.system)
    known = is_cpu or len(gpus) == parallel
    hardware = hardware_of(scenery.system, engine, gpus) if known else None
    precision = wanted.precision or settings.profile.precision
    return Order(folder, engine, precision, limits, names, hardware, _here(gpus))


def _here(gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Return the GPUs if they are this machine's; those that are only imagined have no UUIDs."""
    return gpus if all(gpu.uuid for gpu in gpus) else ()


def _from_profile(scenery: Scenery, wanted: Wanted, progress: Progress) -> Order:
    there = with_settings(scenery, _overrides(scenery, wanted))
    plan = accepted(profile_plan(there))
    profile = plan.profile
    if profile is None:
        raise AssertionError("a plan among profiles has one")
    engine = _engine(profile.engine, scenery)
    source = profile if engine != "llama_cpp" else _unquantised(scenery, profile)
    if source is None:
        message = f"{profile.name} is made from unquantised weights, and the manifest has none of {profile.variant}"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "name a folder with them: --from FOLDER")
    folder = fetch_profile(source, scenery.settings, progress)
    return Order(
        checkpoint=folder,
        engine=engine,
        precision=wanted.precision or profile.precision,
        limits=_limits(scenery.settings, plan, engine),
        names=plan.names,
        hardware=hardware_of(there.system, engine, plan.gpus),
        gpus=_here(plan.gpus),
        unquantised=_unquantised(scenery, profile) if engine != "llama_cpp" else None,
    )


def _overrides(scenery: Scenery, wanted: Wanted) -> Mapping[str, str]:
    # Whether it fits is a question for the machine that serves.
    overrides = {"NIM_RELAX_MEM_CONSTRAINTS": "1"} if wanted.prebuild_only else {}
    if wanted.profile is not None:
        overrides["NIM_MODEL_PROFILE"] = find_profile(scenery.manifest, wanted.profile).id
        return overrides
    if wanted.precision is not None:
        overrides["NIM_MODEL_PRECISION"] = wanted.precision
    if wanted.tensor_parallel is not None:
        overrides["NIM_TENSOR_PARALLEL_SIZE"] = str(wanted.tensor_parallel)
    if wanted.engine is not None:
        overrides["NIM_TAGS_SELECTOR"] = f"llm_engine={_engine(wanted.engine, scenery)}"
    return overrides


def _limits(settings: Settings, plan: Plan, engine: Engine) -> Limits:
    if engine == "llama_cpp":
        return Limits(
            context_tokens=min(plan.context_tokens, TRIAL_CONTEXT),
            max_sequences=settings.engine.max_num_seqs or plan.max_sequences,
        )
    return Limits(
        context_tokens=plan.context_tokens,
        max_sequences=plan.max_sequences,
        tensor_parallel=plan.tensor_parallel,
        gpu_memory_fraction=plan.gpu_memory_fraction or 0.9,
    )


def _unquantised(scenery: Scenery, profile: Profile) -> Profile | None:
    """Return the smallest profile with the unquantised weights of the same model."""
    found = [one for one in scenery.manifest.profiles if (one.variant, one.precision) == (profile.variant, "bf16")]
    plain = [one for one in found if not (one.lora or one.mtp)]
    return min(plain, key=lambda one: one.tensor_parallel, default=None)
