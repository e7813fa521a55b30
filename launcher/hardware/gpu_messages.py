"""What the process that asks the driver tells the launcher: its shapes, and how they are put together again.

Imports nothing heavy: that process starts for every look at the hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

HUNG: Final = "HUNG"
CRASHED: Final = "CRASHED"
NO_PACKAGE: Final = "NO_PACKAGE"
"""Errors beside NVML's own, which go by their names without ``NVML_ERROR_``."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that uses a device, as NVML tells it; ``memory`` in bytes, ``computes`` as opposed to drawing."""

    pid: int
    name: str | None
    memory: int | None
    computes: bool


@dataclass(frozen=True, slots=True)
class Device:
    """What NVML says of one GPU or one MIG slice.

    Attributes:
        index: of the GPU.
        error: NVML's name of the error that ended the questions, such as ``GPU_IS_LOST``; empty for none.
        memory: total and free bytes; None where NVML does not support the question, as on unified memory.
        compute_mode: ``NVML_COMPUTEMODE_*``.
        virtualization: ``NVML_GPU_VIRTUALIZATION_MODE_*``.
        fabric: ``NVML_GPU_FABRIC_STATE_*`` of GPUs behind NVLink switches; 0 elsewhere.
        mig_enabled: the GPU is divided, so it can be used by its slices only.
        mig_profile: of a slice, ``3g.40gb``.
        mig_instances: GPU instance and compute instance of a slice.
        parent_uuid: of the GPU that a slice belongs to.
        mps: an MPS server serves this device.
    """

    index: int
    error: str = ""
    uuid: str = ""
    name: str = ""
    pci_device_id: str = ""
    compute_capability: tuple[int, int] = (0, 0)
    memory: tuple[int, int] | None = (0, 0)
    compute_mode: int = 0
    virtualization: int = 0
    fabric: int = 0
    mig_enabled: bool = False
    mig_profile: str | None = None
    mig_instances: tuple[int, int] | None = None
    parent_uuid: str = ""
    mps: bool = False
    nvlink_peers: tuple[int, ...] = ()
    processes: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """What the driver said, or why it said nothing.

    Attributes:
        error: NVML's name of the error, or one of this module; empty when the driver answers.
        driver: version; empty when unknown.
        cuda: highest CUDA version that can run here; (0, 0) when unknown.
        has_cuda: CUDA's own library, which the driver brings, can be loaded.
    """

    error: str = ""
    driver: str = ""
    cuda: tuple[int, int] = (0, 0)
    has_cuda: bool = True
    devices: tuple[Device, ...] = ()


def assemble(messages: Sequence[dict[str, Any]], end: str) -> Scan:
    """Put together what the process has told: the driver, then each device, then the links between them.

    Args:
        messages: as ``launcher.hardware.nvidia`` writes them, perhaps not all.
        end: why it told no more: an error of this module; empty when it came to its end.
    """
    head: dict[str, Any] = next((message for message in messages if "count" in message or "error" in message), {})
    if "error" in head or not head:
        return Scan(error=head.get("error") or end or CRASHED, driver=head.get("driver", ""))
    links: dict[str, list[int]] = next((message["links"] for message in messages if "links" in message), {})
    devices = [_device(message["device"], links) for message in messages if "device" in message]
    told = {device.index for device in devices}
    # GPUs that were to follow when the driver stopped answering; the first of them stopped it.
    silent = [Device(index, error=end or CRASHED) for index in range(head["count"]) if index not in told]
    cuda, has_cuda = tuple(head["cuda"]), head["has_cuda"]
    return Scan(driver=head["driver"], cuda=cuda, has_cuda=has_cuda, devices=(*devices, *silent))


def _device(fields: dict[str, Any], links: dict[str, list[int]]) -> Device:
    def pair(name: str) -> Any:
        return None if fields[name] is None else tuple(fields[name])

    is_slice = fields["mig_profile"] is not None
    return Device(
        **{
            **fields,
            "compute_capability": pair("compute_capability"),
            "memory": pair("memory"),
            "mig_instances": pair("mig_instances"),
            "nvlink_peers": () if is_slice else tuple(links.get(str(fields["index"]), ())),
            "processes": tuple(Holder(**process) for process in fields["processes"]),
        }
    )
