"""What of this machine and this installation a bundle depends on.

For GPUs that is their name, compute capability, number and driver. llama.cpp's code in the pinned wheel uses a fixed
set of instructions, so bundles for it fit every processor that has these, and not just the one they were built on.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from engine_build.fingerprint import Engine, Hardware
from launcher.commands.engines import LIBRARIES
from launcher.hardware.system import Gpu, System
from launcher.plan.devices import device_sets
from launcher.plan.wishes import Wishes

INSTRUCTIONS: Final = ("avx2", "bmi2", "f16c", "fma", "neon")
"""Features of a processor that the code of the CPU engine is compiled for."""


def hardware_of(system: System, engine: Engine, gpus: Sequence[Gpu] = ()) -> Hardware:
    """Return the devices that an engine computes on; ``gpus`` are those that a plan takes."""
    if engine == "llama_cpp":
        features = [name for name in INSTRUCTIONS if name in system.cpu_features]
        return Hardware(device=platform.machine(), capability=" ".join(features) or "plain", count=0)
    return Hardware(
        device=" + ".join(dict.fromkeys(gpu.name for gpu in gpus)) or "no GPU",
        capability=" + ".join(dict.fromkeys(".".join(map(str, gpu.compute_capability)) for gpu in gpus)) or "none",
        count=len(gpus),
        driver=system.driver.version if system.driver else None,
    )


def gpus_for(hardware: Hardware | None, count: int, system: System) -> tuple[Gpu, ...]:
    """Return the GPUs for a bundle: of its own kind where there are any, linked ones first, those with most memory."""
    usable = [gpu for gpu in system.gpus if gpu.problem is None]
    same = [gpu for gpu in usable if hardware is not None and gpu.name == hardware.device]
    among = tuple(same or usable)
    sets = device_sets(replace(system, gpus=among), count, Wishes())
    return max(sets, key=lambda one: (one.linked, one.budget)).gpus if sets else among[:count]


def engine_version(engine: Engine) -> str | None:
    """Return the version of the engine's library; None where it is not installed."""
    package = LIBRARIES[engine]
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
