"""Says why a GPU cannot be used, and what is good to know about those that can. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from launcher.hardware.driver_problems import CONTAINER_FLAGS, dotted
from launcher.hardware.gpu_messages import CRASHED, HUNG, Device
from launcher.hardware.gpu_signs import Signs
from launcher.hardware.system import Problem

REQUIRED_CAPABILITY: Final = (7, 5)
"""CUDA 13 compiles for no older GPU: its release notes end Maxwell, Pascal and Volta."""

_PROHIBITED: Final = 2
_EXCLUSIVE: Final = (1, 3)
_VGPU: Final = 2
_FABRIC_PENDING: Final = (1, 2)
"""NVML's numbers: compute modes, virtualisation mode, states of NVLink's fabric before it is ready."""


def device_problem(device: Device, signs: Signs) -> Problem | None:
    """Tell why a GPU cannot be used, or None.

    Args:
        device: as the driver describes it.
        signs: where this process runs.
    """
    name = f"GPU {device.index}" + (f" ({device.name})" if device.name else "")
    if device.error:
        return _lost(device, name)
    checks = (_divided, _old, _fabric, _prohibited, _exclusive, _virtual)
    return next((found for check in checks if (found := check(device, name, signs))), None)


def notices(devices: Sequence[Device], signs: Signs) -> Iterator[Problem]:
    """Yield what is good to know about GPUs that do work."""
    virtual = [device for device in devices if device.virtualization == _VGPU and not _virtual(device, "", signs)]
    if virtual:
        numbers = ", ".join(str(device.index) for device in virtual)
        yield Problem(
            "vgpu",
            f"virtual GPU ({numbers}): without a licence it slows down and then refuses CUDA; it has no NVLink",
            "check that nvidia-smi -q shows License Status: Licensed; the licence server is set in gridd.conf",
        )
    if signs.wsl and devices:
        yield Problem(
            "wsl",
            "Windows shares its GPU with this Linux (WSL): what programs of Windows hold is not listed, "
            "and memory that is free now may not stay so",
            "close programs of Windows that use the GPU; RAM is limited in .wslconfig, section [wsl2], memory=",
        )


def _lost(device: Device, name: str) -> Problem:
    number = device.index
    if device.error == "RESET_REQUIRED":
        what = f"{name} needs a reset after an error"
        return Problem("gpu-reset-required", what, f"stop its programs and run sudo nvidia-smi --gpu-reset -i {number}")
    if device.error == "NO_PERMISSION":
        what = f"this user may not use {name}"
        return Problem("permission", what, f"start the container with {CONTAINER_FLAGS}")
    if device.error in (HUNG, CRASHED):
        what = f"{name} does not answer, or stands behind one that does not"
        return Problem("gpu-hung", what, "look into dmesg for NVRM and Xid, and restart the host")
    reason = "has fallen off the bus" if device.error == "GPU_IS_LOST" else f"cannot be read ({device.error})"
    return Problem(
        "gpu-lost",
        f"{name} {reason}",
        "restart the host; if it happens again, check power, cooling and seating (dmesg shows Xid 79)",
    )


def _divided(device: Device, name: str, _: Signs) -> Problem | None:
    if not device.mig_enabled or device.mig_profile is not None:
        return None
    number = device.index
    remedy = (
        f"sudo nvidia-smi mig -i {number} -cgi 0 -C makes one slice of all; sudo nvidia-smi -i {number} -mig 0 ends it"
    )
    return Problem("mig-empty", f"{name} is set to be divided (MIG) and has no slice", remedy)


def _old(device: Device, name: str, _: Signs) -> Problem | None:
    if device.compute_capability >= REQUIRED_CAPABILITY:
        return None
    what = f"{name} has compute capability {dotted(device.compute_capability)}, and CUDA 13 starts at 7.5"
    return Problem("gpu-too-old", what, "use a GPU of the Turing generation (2018) or newer")


def _fabric(device: Device, name: str, signs: Signs) -> Problem | None:
    # Slices have no NVLink to wait for.
    if device.fabric not in _FABRIC_PENDING or device.mig_profile is not None:
        return None
    version = f"={signs.module}" if signs.module else " in the driver's version"
    remedy = f"on the host: systemctl enable --now nvidia-fabricmanager (package nvidia-fabricmanager{version})"
    what = f"{name} waits for the NVLink fabric, and until then CUDA does not start"
    return Problem("fabric-not-ready", what, remedy)


def _prohibited(device: Device, name: str, _: Signs) -> Problem | None:
    if device.compute_mode != _PROHIBITED:
        return None
    remedy = f"sudo nvidia-smi -i {device.index} -c DEFAULT"
    return Problem("compute-prohibited", f"{name} is set to refuse CUDA (compute mode Prohibited)", remedy)


def _exclusive(device: Device, name: str, signs: Signs) -> Problem | None:
    holders = [process for process in device.processes if process.computes]
    if device.compute_mode not in _EXCLUSIVE or not holders:
        return None
    if device.mps or any("nvidia-cuda-mps" in (process.name or "") for process in holders):
        if signs.mps:
            return None
        mounts = "start the container with --ipc=host -v /tmp/nvidia-mps:/tmp/nvidia-mps"
        remedy = mounts if signs.container else "set CUDA_MPS_PIPE_DIRECTORY to the folder of the MPS server"
        return Problem("mps", f"{name} is shared by an MPS server, which cannot be reached from here", remedy)
    what = f"{name} takes one process at a time, and {holders[0].name or 'a process'} ({holders[0].pid}) has it"
    remedy = f"stop that process, or sudo nvidia-smi -i {device.index} -c DEFAULT"
    return Problem("compute-exclusive", what, remedy)


def _virtual(device: Device, name: str, _: Signs) -> Problem | None:
    # The profile's last letter: A for applications and B for desktops have no CUDA; C and Q have.
    if device.virtualization != _VGPU or not device.name.rstrip("0123456789").endswith(("A", "B")):
        return None
    what = f"{name} is a virtual GPU of a kind without CUDA"
    return Problem("vgpu", what, "have the hypervisor's administrator assign a profile of series C or Q")
