"""What this machine offers: GPUs, driver, processor, memory, and what is wrong with them.

``detect`` never fails for hardware's sake: what is broken becomes a ``Problem`` with a remedy. Each part is read by a
module of its own; what to run on all this is decided by the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.devices import DeviceVariables, device_variables
from launcher.hardware.cpu import read_cpu
from launcher.hardware.driver_problems import driver_problem, scan_problem
from launcher.hardware.gpu_messages import Device, Scan
from launcher.hardware.gpu_problems import device_problem, notices
from launcher.hardware.gpu_scan import scan_gpus
from launcher.hardware.gpu_signs import Signs, read_signs
from launcher.hardware.host_memory import Memory, host_memory, usable_memory
from launcher.hardware.system import Driver, Gpu, GpuProcess, Problem, System
from launcher.hardware.visible_devices import Selection, cuda_visible_devices, select_devices

__all__ = ["Driver", "Gpu", "GpuProcess", "Problem", "Sources", "System", "cuda_visible_devices", "detect"]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where facts come from; the defaults are this machine.

    Attributes:
        root: where ``/dev``, ``/proc`` and ``/sys`` lie.
        affinity: processors that this process may run on; None asks the kernel.
        variables: what the user said about GPUs; None reads the environment.
        scan: asks the driver.
    """

    root: Path = Path("/")
    affinity: int | None = None
    variables: DeviceVariables | None = None
    scan: Callable[[], Scan] = scan_gpus


def detect(sources: Sources | None = None) -> System:
    """Look at the machine; never raises for faults of hardware, and returns in bounded time."""
    given = sources or Sources()
    variables = device_variables() if given.variables is None else given.variables
    scan, signs = given.scan(), read_signs(given.root, variables.mps_pipe_directory)
    selection = select_devices(scan.devices, variables)
    cpu, memory = read_cpu(given.root, given.affinity), usable_memory(given.root)
    return System(
        gpus=tuple(_gpu(device, scan, signs, given.root) for device in selection.devices),
        driver=Driver(scan.driver, scan.cuda) if scan.driver else None,
        cpu_model=cpu.model,
        cores=cpu.cores,
        cpu_features=cpu.features,
        memory_total=memory.total,
        memory_available=memory.available,
        problems=_problems(scan, signs, selection),
    )


def _problems(scan: Scan, signs: Signs, selection: Selection) -> tuple[Problem, ...]:
    found = (scan_problem(scan, signs), driver_problem(scan, signs))
    return (
        *(problem for problem in found if problem is not None),
        *selection.problems,
        *notices(selection.devices, signs),
    )


def _gpu(device: Device, scan: Scan, signs: Signs, root: Path) -> Gpu:
    unified = device.memory is None
    total, free = _unified(host_memory(root)) if device.memory is None else device.memory
    return Gpu(
        index=device.index,
        uuid=device.uuid,
        name=device.name or "unknown GPU",
        pci_device_id=device.pci_device_id,
        compute_capability=device.compute_capability,
        memory_total=total,
        memory_free=free,
        mig_profile=device.mig_profile,
        unified_memory=unified,
        nvlink_peers=frozenset(device.nvlink_peers),
        processes=tuple(GpuProcess(holder.pid, holder.name, holder.memory) for holder in device.processes),
        problem=device_problem(device, signs) or driver_problem(scan, signs),
    )


def _unified(memory: Memory) -> tuple[int, int]:
    # The GPU's pages are nobody's in a container's accounts, so the machine's figures count.
    return memory.total or 0, memory.available or 0
