"""Decides what a build has to do: an engine, a precision, a checkpoint and a machine in, steps or a refusal out.

Pure: no file, no clock, no process. ``prebuild`` and ``build`` carry it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from engine_build.checkpoint_facts import PLAIN, CheckpointFacts
from engine_build.errors import PlanError
from engine_build.fingerprint import Engine, Fingerprint, Hardware
from engine_build.frozen_arguments import lasting
from engine_build.gguf_types import WeightType

GGUF_TYPES: Final = tuple(weight_type.value for weight_type in WeightType)
PRECISIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"llama_cpp": GGUF_TYPES, "vllm": ("bf16", "fp8", "nvfp4"), "tensorrt_llm": ("bf16", "fp8", "nvfp4")}
)
"""Engine -> what its weights can be built in."""
PLAIN_PRECISIONS: Final = ("f32", "f16", "bf16")


BYTES_PER_WEIGHT: Final[Mapping[str, float]] = MappingProxyType(
    {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1.1, "q4_k_m": 0.7, "fp8": 1.2, "nvfp4": 0.9}
)
"""Roughly, with what is not quantised; for the room that a build needs."""
SPARE_SHARE: Final = 1.05
"""For metadata, answers and small caches."""


class Step(StrEnum):
    """One part of a build, in the order in which they are done."""

    CHECK = "check"
    """Read every byte of the checkpoint, and see that it is whole."""
    CONVERT = "convert"
    """Write GGUF files."""
    REFER = "refer"
    """Note the checkpoint by its digest; it is used as it is."""
    QUANTISE = "quantise"
    """Quantise with ModelOpt, on a GPU, in a process of its own."""
    ARGUMENTS = "arguments"
    """Freeze the engine's arguments."""
    REFERENCE = "reference"
    """Have the unquantised checkpoint answer the questions of the gate."""
    COLD_START = "cold start"
    """Start the engine for the first time, and warm it up: kernels are chosen and compiled, caches written."""
    WARM_START = "warm start"
    """Start it again with what is now in the bundle, and have it answer the questions."""
    GATE = "gate"
    """Compare the answers; a bundle that fails is thrown away."""
    SEAL = "seal"
    """Write checksums and the manifest."""


ON_TARGET: Final = frozenset({Step.QUANTISE, Step.REFERENCE, Step.COLD_START, Step.WARM_START, Step.GATE})
"""What has to be done on the machine, or at least the kind of machine, that will serve."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What is to be built, out of what, for what.

    Attributes:
        checkpoint: what there is.
        engine_version: None where the engine is not installed: it is then settled on the target.
        hardware: None where the target is not known yet.
        arguments: the engine's arguments as they are to be frozen.
        prebuild_only: do only what needs no GPU and no engine.
        has_reference: an unquantised checkpoint, or answers of one, are at hand beside ``checkpoint``.
    """

    engine: Engine
    precision: str
    checkpoint: CheckpointFacts
    engine_version: str | None
    hardware: Hardware | None
    arguments: Mapping[str, Any]
    prebuild_only: bool = False
    has_reference: bool = False


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What will be done.

    Attributes:
        fingerprint: of the bundle that results.
        steps: to be done now, in order.
        pending: left for the target, in order.
        is_exact: weights keep at least 16 bits, so that only rounding separates them from the checkpoint's.
        has_own_reference: the checkpoint that is built is itself unquantised and can be asked for comparison.
    """

    request: BuildRequest
    fingerprint: Fingerprint
    steps: tuple[Step, ...]
    pending: tuple[Step, ...]
    is_exact: bool
    has_own_reference: bool

    @property
    def bundle_id(self) -> str:
        """Return the name of the bundle."""
        return self.fingerprint.bundle_id

    @property
    def room(self) -> int:
        """Return about how many bytes the build writes: its weights, and those of the gate while it lasts."""
        checkpoint, total = self.request.checkpoint, 0.0
        if {Step.CONVERT, Step.QUANTISE} & set(self.steps):
            share = BYTES_PER_WEIGHT[self.fingerprint.precision] / BYTES_PER_WEIGHT[checkpoint.stored]
            total += checkpoint.size * share
        if Step.REFERENCE in self.steps and self.request.engine == "llama_cpp":
            total += checkpoint.size
        return int(total * SPARE_SHARE)


def plan_build(request: BuildRequest) -> BuildPlan:
    """Return what has to be done.

    Raises:
        PlanError: it cannot be built; the message says why and what can.
    """
    _check_precision(request)
    _check_checkpoint(request)
    if not request.prebuild_only:
        _check_target(request)
    is_plain = request.checkpoint.quantisation == PLAIN
    is_exact = request.precision in PLAIN_PRECISIONS
    if not (request.prebuild_only or is_exact or is_plain or request.has_reference):
        raise PlanError(
            f"the accuracy gate compares {request.precision} with unquantised weights, and there are none: "
            "give the unquantised checkpoint, or a bundle made of it, with --reference"
        )
    steps = tuple(_steps(request, is_exact=is_exact))
    pending: tuple[Step, ...] = ()
    if request.prebuild_only:
        pending = tuple(step for step in steps if step in ON_TARGET)
        steps = tuple(step for step in steps if step not in ON_TARGET)
    fingerprint = Fingerprint(
        engine=request.engine,
        engine_version=request.engine_version,
        hardware=None if request.prebuild_only else request.hardware,
        model=request.checkpoint.digest,
        precision=request.precision,
        arguments=lasting(request.arguments),
    )
    return BuildPlan(request, fingerprint, steps, pending, is_exact=is_exact, has_own_reference=is_plain)


def _steps(request: BuildRequest, *, is_exact: bool) -> Iterator[Step]:
    yield Step.CHECK
    if request.engine == "llama_cpp":
        yield Step.CONVERT
    elif request.checkpoint.quantisation == PLAIN and not is_exact:
        yield Step.QUANTISE
    else:
        yield Step.REFER
    yield Step.ARGUMENTS
    # Where the bundle's weights are the checkpoint's own, there is nothing to compare them with.
    if not _is_its_own_reference(request):
        yield Step.REFERENCE
    yield from (Step.COLD_START, Step.WARM_START, Step.GATE, Step.SEAL)


def _is_its_own_reference(request: BuildRequest) -> bool:
    if request.engine == "llama_cpp":
        return request.precision == request.checkpoint.stored
    return request.precision in PLAIN_PRECISIONS


def _check_precision(request: BuildRequest) -> None:
    known = PRECISIONS[request.engine]
    if request.precision not in known:
        others = [engine for engine, precisions in PRECISIONS.items() if request.precision in precisions]
        hint = f"; {request.precision} is for {' and '.join(others)}" if others else ""
        raise PlanError(f"{request.engine} has no precision {request.precision!r}, only {', '.join(known)}{hint}")


def _check_checkpoint(request: BuildRequest) -> None:
    found = request.checkpoint.quantisation
    if found in (PLAIN, request.precision) and (found == PLAIN or request.engine != "llama_cpp"):
        return
    if request.engine == "llama_cpp":
        raise PlanError(f"GGUF files are made from unquantised weights; {request.checkpoint.name} is {found}")
    raise PlanError(
        f"{request.checkpoint.name} is {found} already and cannot become {request.precision}: "
        "start from the unquantised checkpoint"
    )


def _check_target(request: BuildRequest) -> None:
    if request.engine_version is None:
        raise PlanError(
            f"the engine {request.engine} is not installed here; "
            "without it only the first half can be done: --prebuild-only"
        )
    if request.hardware is None or (request.engine != "llama_cpp" and request.hardware.count == 0):
        raise PlanError(
            f"{request.engine} is warmed up on the GPU that it will serve on, and there is none here; "
            "without one only the first half can be done: --prebuild-only"
        )
