"""The half of a build that needs no engine and no GPU: weights in the form that the engine loads, and its arguments.

It writes into the work folder of a build, which nobody else reads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from config.runtime import EngineRuntime
from engine_build.build_plan import BuildPlan, Step
from engine_build.errors import BundleError
from engine_build.frozen_arguments import CHECKPOINT, write_arguments
from engine_build.gguf_export import MODEL_NAME, PROJECTOR_NAME, TOKENIZER_NAME, export_checkpoint
from engine_build.gguf_types import WeightType
from engine_build.limits import Limits
from engine_build.trial_process import run_module

REFERENCE: Final = "reference"
"""Folder of the work folder for unquantised weights that only the gate needs; it never becomes part of a bundle."""
ENDPOINT: Final = "unix:unused"
"""Trials call their core directly; nothing listens."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a build takes place.

    Attributes:
        work: an empty folder; what is in it at the end is the bundle.
        checkpoint: the checkpoint that is built.
        limits: what the engine is built for.
        threads: that the CPU engine computes with.
        timeout_s: for each process that is started.
        tell: takes the step, what is being done, and how much of how much is done (0 of 0 where that is not counted).
        names: under which requests may address the model.
        reference: an unquantised checkpoint, or the answers of one, to compare with; None where the plan needs none.
        prebuilt: a prebuilt bundle of the same fingerprint whose weights are taken over.
        home: where the bundle will lie; a checkpoint on the same volume is noted by its place relative to it.
        devices: variables that show an engine its GPUs, and no others.
    """

    work: Path
    checkpoint: Path
    limits: Limits
    threads: int
    timeout_s: float
    tell: Callable[[Step, str, int, int], None]
    names: tuple[str, ...]
    reference: Path | None = None
    prebuilt: Path | None = None
    home: Path | None = None
    devices: Mapping[str, str] = field(default_factory=dict)


def make_weights(plan: BuildPlan, site: Site) -> None:
    """Do the step of the plan that makes the weights.

    Raises:
        EngineBuildError: one of its subclasses; what was written then lies in the work folder.
    """
    if Step.CONVERT in plan.steps:
        _convert(plan, site)
    elif Step.QUANTISE in plan.steps:
        site.tell(Step.QUANTISE, plan.request.precision, 0, 0)
        arguments = [
            "--checkpoint", str(site.checkpoint), "--out", str(site.work / CHECKPOINT),
            "--precision", plan.request.precision,
        ]  # fmt: skip
        run_module(
            "engine_build.modelopt_quantize",
            arguments,
            ({}, site.timeout_s),
            lambda text, done, total: site.tell(Step.QUANTISE, text, done, total),
        )
    else:
        site.tell(Step.REFER, str(site.checkpoint), 0, 0)


def _convert(plan: BuildPlan, site: Site) -> None:
    target = site.work / CHECKPOINT
    if site.prebuilt is not None and (site.prebuilt / CHECKPOINT).is_dir():
        site.tell(Step.CONVERT, f"taken over from {site.prebuilt.name}", 0, 0)
        take_over(site.prebuilt / CHECKPOINT, target)
        return
    _export(plan, site, (Step.CONVERT, target, WeightType(plan.request.precision)))


def make_reference(plan: BuildPlan, site: Site) -> Path:
    """Return the folder of unquantised weights for the gate; for llama.cpp they are made, for others they are there.

    Raises:
        EngineBuildError: they cannot be made.
    """
    if plan.request.engine != "llama_cpp":
        return site.reference if site.reference is not None else site.checkpoint
    target = site.work / REFERENCE
    _export(plan, site, (Step.REFERENCE, target, WeightType(plan.request.checkpoint.stored)))
    return target


def _export(plan: BuildPlan, site: Site, what: tuple[Step, Path, WeightType]) -> None:
    step, target, weight_type = what
    name, total, done = plan.request.checkpoint.name, plan.request.checkpoint.size, 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        site.tell(step, f"{name} to {weight_type}", done, total)

    site.tell(step, f"{name} to {weight_type}", 0, total)
    export_checkpoint(site.checkpoint, target, weight_type, name=name, advance=advance)


def freeze_arguments(plan: BuildPlan, site: Site) -> None:
    """Write the arguments file."""
    site.tell(Step.ARGUMENTS, "", 0, 0)
    has_checkpoint = (site.work / CHECKPOINT).is_dir()
    write_arguments(site.work, plan.request.engine, plan.request.arguments, has_checkpoint=has_checkpoint)


def runtime_for(plan: BuildPlan, site: Site, weights: Path, *, bundle: Path | None) -> EngineRuntime:
    """Return what a trial hands to the core.

    Args:
        plan: the build.
        site: where it takes place.
        weights: folder with what the engine loads.
        bundle: the bundle whose frozen arguments count; None for unquantised weights, which have none.
    """
    limits, engine = site.limits, plan.request.engine
    is_gguf = engine == "llama_cpp"
    projector = weights / PROJECTOR_NAME
    return EngineRuntime(
        core=engine,
        model_path=weights / MODEL_NAME if is_gguf else None,
        mmproj_path=projector if is_gguf and projector.is_file() else None,
        tokenizer_path=weights / TOKENIZER_NAME,
        endpoint=ENDPOINT,
        context_tokens=limits.context_tokens,
        max_sequences=limits.max_sequences,
        threads=site.threads,
        checkpoint_path=None if is_gguf else weights,
        bundle_path=bundle,
        precision="auto" if is_gguf or bundle is None else plan.request.precision,
        tensor_parallel=limits.tensor_parallel,
        gpu_memory_fraction=limits.gpu_memory_fraction,
    )


def take_over(source: Path, target: Path) -> None:
    """Make ``target`` a folder with the same files as ``source``: the same on disk where that can be, else copies.

    Raises:
        BundleError: a file cannot be read or written.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        for path in sorted(source.iterdir()):
            if path.is_file():
                _link_or_copy(path, target / path.name)
    except OSError as error:
        raise BundleError(f"{source} cannot be taken over: {error.strerror or error}") from error


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        # Another volume, or one without links.
        shutil.copyfile(source, target)


def remove_all(folders: Iterable[Path]) -> None:
    """Delete folders that no bundle keeps."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
