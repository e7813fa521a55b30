"""The processor: its name, what its instruction set has, and how many cores this process may use."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from launcher.hardware.host_memory import control_groups, read_text

UNKNOWN: Final = "unknown processor"

# Implementer and part of the main ID register: arch/arm64/include/asm/cputype.h of Linux.
_ARM_CORES: Final = MappingProxyType(
    {
        ("0x41", "0xd0c"): "Arm Neoverse N1",
        ("0x41", "0xd40"): "Arm Neoverse V1",
        ("0x41", "0xd49"): "Arm Neoverse N2",
        ("0x41", "0xd4f"): "Arm Neoverse V2",
        ("0x41", "0xd83"): "Arm Neoverse V3AE",
        ("0x41", "0xd84"): "Arm Neoverse V3",
        ("0x41", "0xd85"): "Arm Cortex-X925",
        ("0x41", "0xd87"): "Arm Cortex-A725",
        ("0xc0", "0xac3"): "Ampere-1",
    }
)


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the engine's code can count on.

    Attributes:
        cores: logical processors that this process may use, at least 1: affinity and control groups applied.
        features: names as the kernel writes them, common to all processors; ``neon`` on every 64-bit Arm.
    """

    model: str
    cores: int
    features: frozenset[str]


def read_cpu(root: Path = Path("/"), affinity: int | None = None) -> Cpu:
    """Look at the processor whose ``/proc`` and ``/sys`` lie under ``root``.

    Args:
        root: where ``/proc`` and ``/sys`` lie.
        affinity: processors that this process may run on; None asks the kernel.
    """
    processors = _processors(root)
    return Cpu(
        model=_model(processors),
        cores=max(min([_affinity() if affinity is None else affinity, *_quotas(root)]), 1),
        features=_features(processors),
    )


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(root: Path) -> list[int]:
    """Return how many whole processors each group's quota of time is worth."""
    pairs = [read_text(group / "cpu.max").split() for group in control_groups(root, "")]
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    pairs += [[read_text(group / name).strip() for name in names] for group in control_groups(root, "cpu")]
    return [
        int(pair[0]) // int(pair[1])
        for pair in pairs
        if len(pair) == 2 and all(part.isdigit() for part in pair) and int(pair[1]) > 0  # noqa: PLR2004 - quota, period
    ]


def _processors(root: Path) -> list[dict[str, str]]:
    """Return the fields of each processor in ``/proc/cpuinfo``."""
    blocks = re.split(r"\n\s*\n", read_text(root / "proc/cpuinfo"))
    processors = []
    for block in blocks:
        pairs = (line.partition(":") for line in block.splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        if "processor" in fields:
            processors.append(fields)
    return processors


def _model(processors: list[dict[str, str]]) -> str:
    names = []
    for fields in processors:
        core = (fields.get("CPU implementer", ""), fields.get("CPU part", ""))
        names.append(fields.get("model name") or _ARM_CORES.get(core) or (f"Arm {core[1]}" if core[1] else UNKNOWN))
    # Boards with big and small cores have several.
    return " + ".join(dict.fromkeys(names)) or UNKNOWN


def _features(processors: list[dict[str, str]]) -> frozenset[str]:
    sets = [frozenset((fields.get("flags") or fields.get("Features") or "").split()) for fields in processors]
    common = frozenset.intersection(*sets) if sets else frozenset()
    return common | {"neon"} if "asimd" in common else common
