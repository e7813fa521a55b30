"""The GPUs of a plan on their way to the engine: what shows it those and no others, and whether they are still there.

Which GPUs are taken, and in which order, the plan has settled among those that ``launcher.hardware`` found allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from config.devices import DeviceVariables
from launcher.errors import HardwareFaultError
from launcher.hardware.detection import Sources, cuda_visible_devices, detect
from launcher.hardware.gpu_scan import scan_gpus
from launcher.hardware.system import Gpu, Problem, System

LOOK_TIMEOUT_S: Final = 20.0
"""A driver that is silent for longer proves nothing, and the engine's start may tell more."""
_PASSING: Final = frozenset(
    {"compute-exclusive", "driver-crashed", "driver-hung", "fabric-not-ready", "gpu-hung", "mps"}
)
"""Problems that may be over a moment later, such as memory that a dead engine's last process still holds."""
_REMEDY: Final = "start again: the plan then takes what is left"


def device_environment(gpus: Sequence[Gpu]) -> Mapping[str, str]:
    """Return the variables that make an engine see exactly these GPUs in this order; none for the CPU engine.

    Some engines turn the UUIDs into numbers to ask the driver about them, which counts in PCI order.
    """
    if not gpus:
        return {}
    return {"CUDA_VISIBLE_DEVICES": cuda_visible_devices(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def device_rows(gpus: Sequence[Gpu]) -> list[tuple[str, str]]:
    """Return what the engine is shown as a name and a value, for people; nothing for GPUs that are only imagined."""
    if not gpus or not all(gpu.uuid for gpu in gpus):
        return []
    return [("devices", "  ".join(f"{name}={value}" for name, value in device_environment(gpus).items()))]


def look_again() -> System:
    """Look at all GPUs of the machine, whatever the variables of the start allow."""
    return detect(Sources(variables=DeviceVariables(), scan=partial(scan_gpus, LOOK_TIMEOUT_S)))


def check_devices(gpus: Sequence[Gpu], look: Callable[[], System] = look_again) -> None:
    """See that the GPUs which a plan takes can still be used.

    Raises:
        HardwareFaultError: one of them has gone or broken since; it is named, with the reason.
    """
    if not gpus:
        return
    system = look()
    found = {gpu.uuid: gpu for gpu in system.gpus}
    for gpu in gpus:
        problem = found[gpu.uuid].problem if gpu.uuid in found else _why_gone(gpu, system)
        if problem is not None and problem.code not in _PASSING:
            message = f"GPU {gpu.index} ({gpu.name}, {gpu.uuid}), which the engine runs on, is lost: {problem.what}"
            raise HardwareFaultError(message, f"{problem.remedy}; or {_REMEDY}" if problem.remedy else _REMEDY)


def _why_gone(gpu: Gpu, system: System) -> Problem:
    """Say why a GPU is not among those that the driver tells of; one that no longer answers has a number only."""
    silent = (other.problem for other in system.gpus if not other.uuid and other.index == gpu.index)
    # Where some GPUs can be seen, the system's own problems are mere notices.
    known = next((problem for problem in (*silent, *(() if system.gpus else system.problems)) if problem), None)
    return known or Problem("gpu-lost", "the driver no longer knows it", "")
