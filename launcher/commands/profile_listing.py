"""The text of ``list-model-profiles``: NIM's section headings and profile lines, and a reason and remedy for each.

Lines that begin with two blanks, a dash and an id are exactly NIM's; what this project adds are lines with ``#`` above
the profiles that they are about, and the last section.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from config.manifest import Manifest, Profile
from launcher.commands.amounts import whole_gigabytes
from launcher.hardware.system import Gpu, System
from launcher.plan.planner import Plan, Refusal, Rejection, Verdict, gib
from launcher.plan.reasons import BUSY_SHARE

NONE: Final = "<None>"
CPU_ENGINE: Final = "llama_cpp"


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed.

    Attributes:
        result: the plan for the best profile, or why there is none.
        required: bytes that the chosen profile needs for the wanted context; 0 without one.
        starts: what a start would serve here, in one line.
    """

    system: System
    engines: frozenset[str]
    manifest: Manifest
    result: Plan | Refusal
    required: int
    starts: str


def lines(listing: Listing) -> Iterator[str]:
    """Yield the whole text, line by line."""
    yield "SYSTEM INFO"
    yield from system_lines(listing.system)
    yield f"- Engines in this image: {', '.join(sorted(listing.engines)) or NONE}"
    yield "MODEL PROFILES"
    yield from _profiles(listing)
    yield "SELECTED PROFILE"
    if isinstance(listing.result, Plan) and listing.result.profile is not None:
        yield f"- {listing.result.profile.id} ({listing.result.profile.name})"
        yield f"  # why: {listing.result.why}"
        yield from (f"  # note: {note}" for note in listing.result.notes)
    elif isinstance(listing.result, Refusal):
        yield f"- {NONE}"
        yield f"  # why: {listing.result.reason}"
        yield f"  # fix: {listing.result.remedy}"
    yield f"- nim-serve starts: {listing.starts}"


def system_lines(system: System) -> Iterator[str]:
    """Yield what there is: GPUs as NIM lists them, then processor, memory and problems."""
    free = [gpu for gpu in system.gpus if is_free(gpu)]
    yield from _gpus("Free GPUs", free)
    yield from _gpus("Non-free GPUs", [gpu for gpu in system.gpus if gpu not in free])
    if system.driver is not None:
        yield f"- Driver: {system.driver.version} (CUDA {'.'.join(str(part) for part in system.driver.cuda)})"
    memory = [gib(size) if size is not None else "unknown" for size in (system.memory_available, system.memory_total)]
    yield f"- CPU: {system.cpu_model or 'unknown'}, {system.cores} cores, {memory[0]} of {memory[1]} memory available"
    for problem in system.problems:
        yield f"- Problem: {problem.what}"
        yield f"  # fix: {problem.remedy}"


def is_free(gpu: Gpu) -> bool:
    """Tell whether nobody else uses a GPU to speak of, and it can be used."""
    return gpu.problem is None and (gpu.unified_memory or gpu.memory_free >= gpu.memory_total * BUSY_SHARE)


def requirement(rejection: Rejection) -> str:
    """Return what a profile requires, in NIM's words."""
    profile = rejection.profile
    if rejection.required_bytes <= 0:
        return ""
    unit = " of main memory" if profile.engine == CPU_ENGINE else "/gpu"
    text = f"requires >={whole_gigabytes(rejection.required_bytes)} GB{unit}"
    if profile.tensor_parallel > 1:
        text += f" per {profile.tensor_parallel} GPUs"
    if rejection.verdict is Verdict.LOW_MEMORY and rejection.smallest_bytes < rejection.required_bytes:
        smallest = whole_gigabytes(rejection.smallest_bytes)
        text += f", try --max-model-len=2048 to reduce to >={smallest} GB{unit}"
    return f" [{text}]"


def _gpus(title: str, gpus: Sequence[Gpu]) -> Iterator[str]:
    yield f"- {title}:" if gpus else f"- {title}: {NONE}"
    for gpu in gpus:
        vendor, _, device = gpu.pci_device_id.partition(":")
        used = 100 - round(100 * gpu.memory_free / gpu.memory_total) if gpu.memory_total else 0
        short = gpu.name.removeprefix("NVIDIA ")
        slice_of = f" MIG {gpu.mig_profile}" if gpu.mig_profile and gpu.mig_profile not in gpu.name else ""
        yield (
            f"  -  [{device}:{vendor}] ({gpu.index}) {gpu.name}{slice_of} ({short}) [current utilization: {used}%]"
            f"  # {gib(gpu.memory_free)} of {gib(gpu.memory_total)} free"
        )
        for process in gpu.processes:
            held = f" holds {gib(process.memory)}" if process.memory is not None else ""
            yield f"       # {process.name or 'a process'} (pid {process.pid}){held}"
        if gpu.problem is not None:
            yield f"       # why: {gpu.problem.what}"
            yield f"       # fix: {gpu.problem.remedy}"


def _profiles(listing: Listing) -> Iterator[str]:
    rejected = listing.result.rejected
    runnable = [one for one in rejected if one.verdict is Verdict.RUNNABLE]
    chosen = listing.result.profile if isinstance(listing.result, Plan) else None
    plain = [one for one in runnable if not one.profile.lora]
    yield from _heading("Compatible with system and runnable", is_empty=not runnable and chosen is None)
    if chosen is not None and isinstance(listing.result, Plan) and not chosen.lora:
        yield from _chosen(chosen, listing.result, listing.required)
    yield from _group(plain, fixes=False)
    lora = [one for one in runnable if one.profile.lora]
    if lora or (chosen is not None and chosen.lora):
        yield "  - With LoRA support:"
        if chosen is not None and isinstance(listing.result, Plan) and chosen.lora:
            yield from (f"  {line}" for line in _chosen(chosen, listing.result, listing.required))
        yield from (f"  {line}" for line in _group(lora, fixes=False))
    title = "Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines"
    yield f"- {title}: {NONE}"
    for title, verdict in (
        ("Compatible with system but low memory", Verdict.LOW_MEMORY),
        ("Incompatible with system", Verdict.INCOMPATIBLE),
    ):
        found = [one for one in rejected if one.verdict is verdict]
        yield from _heading(title, is_empty=not found)
        yield from _group(found, fixes=True)


def _heading(title: str, *, is_empty: bool) -> Iterator[str]:
    yield f"- {title}: {NONE}" if is_empty else f"- {title}:"


def _chosen(profile: Profile, plan: Plan, required: int) -> Iterator[str]:
    need = whole_gigabytes(required)
    unit = "/gpu" if plan.gpus else " of main memory"
    several = f" per {profile.tensor_parallel} GPUs" if profile.tensor_parallel > 1 else ""
    yield f"  # selected: {plan.why}"
    yield f"  - {profile.id} ({profile.name}) [requires >={need} GB{unit}{several}]"


def _group(rejections: Sequence[Rejection], *, fixes: bool) -> Iterator[str]:
    """Yield profiles under the reason that they share, and with ``fixes`` below it under what would help."""
    groups: dict[str, dict[str, list[Rejection]]] = {}
    for one in rejections:
        groups.setdefault(one.reason, {}).setdefault(one.remedy if fixes else "", []).append(one)
    for reason, remedies in groups.items():
        yield f"  # why: {reason}"
        for remedy, found in remedies.items():
            if remedy:
                yield f"  # fix: {remedy}"
            yield from (f"  - {one.profile.id} ({one.profile.name}){requirement(one)}" for one in found)
