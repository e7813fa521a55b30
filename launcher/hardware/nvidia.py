"""Reads GPUs through NVML, the driver's management library; the only module that imports nvidia-ml-py.

It runs as a process of its own (``gpu_scan`` says why) and writes one JSON object per line as it goes: the
driver, each device, the links between them. NVML never makes a CUDA context, so looking costs no GPU memory. Some
drivers and boards cannot answer everything: only what names a device is needed, the rest has a default.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any, Final

import pynvml

from launcher.hardware.gpu_messages import Device, Holder

_ERRORS: Final = {
    value: name.removeprefix("NVML_ERROR_") for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")
}
_DEAD: Final = frozenset({pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED})
"""After these errors no other question to the device makes sense."""
_PROFILE: Final = re.compile(r"\bMIG (\S+)$")
_MIB: Final = 1024 * 1024
_MEMORY_SLICES: Final = 8
"""A MIG slice has so many eighths of the memory."""


def messages() -> Iterator[dict[str, Any]]:
    """Yield what the driver says: ``{"error"}``, or ``{"count", ...}``, a ``{"device"}`` each, and ``{"links"}``."""
    try:
        pynvml.nvmlInit()
        driver, count = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        yield {"error": _name(error)}
        return
    cuda, has_cuda = _cuda()
    # 13020 is 13.2.
    yield {"driver": driver, "count": count, "cuda": [cuda // 1000, cuda % 1000 // 10], "has_cuda": has_cuda}
    handles = {}
    for index in range(count):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            devices = list(_devices(index, handle))
        except pynvml.NVMLError as error:
            devices = [Device(index, error=_name(error))]
        if devices[0].uuid and not devices[0].mig_enabled:
            handles[index] = handle
        yield from ({"device": asdict(device)} for device in devices)
    yield {"links": {index: _peers(index, handles) for index in handles}}


def _devices(index: int, handle: Any) -> Iterator[Device]:
    """Yield the GPU, or its slices if it is divided and has any."""
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    gpu = _describe(
        handle,
        Device(
            index,
            pci_device_id=_pci_device_id(pynvml.nvmlDeviceGetPciInfo(handle).pciDeviceId),
            compute_capability=(major, minor),
            compute_mode=_ask(pynvml.nvmlDeviceGetComputeMode, handle, default=pynvml.NVML_COMPUTEMODE_DEFAULT),
            virtualization=_ask(pynvml.nvmlDeviceGetVirtualizationMode, handle, default=0),
            fabric=_ask(_fabric_state, handle, default=0),
            mig_enabled=_ask(pynvml.nvmlDeviceGetMigMode, handle, default=[0, 0])[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
            mps=bool(_ask(pynvml.nvmlDeviceGetMPSComputeRunningProcesses, handle, default=[])),
        ),
    )
    slices = list(_slices(gpu, handle)) if gpu.mig_enabled else []
    yield from slices or [gpu]


def _describe(handle: Any, device: Device) -> Device:
    """Fill in what is asked of a GPU and of a slice in the same way."""
    return replace(
        device,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory=_memory(handle),
        processes=tuple(_processes(handle)),
    )


def _slices(gpu: Device, handle: Any) -> Iterator[Device]:
    for number in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle, default=0)):
        part = _ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number, default=None)
        if part is None:
            continue
        found = _describe(part, replace(gpu, mps=False, parent_uuid=gpu.uuid))
        named = _PROFILE.search(found.name)
        yield replace(
            found,
            mig_profile=named.group(1) if named else _profile(part, gpu),
            mig_instances=(pynvml.nvmlDeviceGetGpuInstanceId(part), pynvml.nvmlDeviceGetComputeInstanceId(part)),
        )


def _profile(part: Any, gpu: Device) -> str:
    """Name a slice by its size, for drivers that leave the profile out of the name: ``1c.3g.40gb``, ``3g.40gb``."""
    size = pynvml.nvmlDeviceGetAttributes(part)
    total_gib = -(-gpu.memory[0] // 1024**3) if gpu.memory else 0
    eighths = -(-size.memorySizeMB * _MIB * _MEMORY_SLICES // gpu.memory[0]) if gpu.memory and gpu.memory[0] else 0
    gigabytes = round(eighths * total_gib / _MEMORY_SLICES)
    compute, whole = size.computeInstanceSliceCount, size.gpuInstanceSliceCount
    return f"{whole}g.{gigabytes}gb" if compute == whole else f"{compute}c.{whole}g.{gigabytes}gb"


def _memory(handle: Any) -> tuple[int, int] | None:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return None  # Boards whose GPU has no memory of its own.
        if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
            return 0, 0  # A divided GPU tells it to administrators only, and only its slices count.
        raise
    return memory.total, memory.free


def _processes(handle: Any) -> Iterator[Holder]:
    seen = set()
    computing, drawing = pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses
    for question in (computing, drawing):
        for process in _ask(question, handle, default=[]):
            if process.pid not in seen:
                seen.add(process.pid)
                yield Holder(process.pid, _process_name(process.pid), process.usedGpuMemory, question is computing)


def _process_name(pid: int) -> str | None:
    try:
        name = _ask(pynvml.nvmlSystemGetProcessName, pid, default="")
    except UnicodeDecodeError:
        return None
    # The folder tells nothing, and a name may hold anything, terminal codes included.
    return "".join(letter for letter in PurePosixPath(name).name if letter.isprintable()) or None


def _fabric_state(handle: Any) -> int:
    info = pynvml.c_nvmlGpuFabricInfoV_t()
    pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
    return int(info.state)


def _peers(index: int, handles: dict[int, Any]) -> list[int]:
    """Return the GPUs that this one reaches by NVLink, through switches as well."""
    question, link = pynvml.nvmlDeviceGetP2PStatus, pynvml.NVML_P2P_CAPS_INDEX_NVLINK
    unknown = pynvml.NVML_P2P_STATUS_UNKNOWN
    others = [(other, handle) for other, handle in handles.items() if other != index]
    try:
        return [
            other
            for other, handle in others
            if _ask(question, handles[index], handle, link, default=unknown) == pynvml.NVML_P2P_STATUS_OK
        ]
    except pynvml.NVMLError:
        return []  # Lost since a moment ago; links are of no use then.


def _cuda() -> tuple[int, bool]:
    """Return the highest CUDA version that can run here, and whether CUDA's own library is here to run it.

    That library is asked, because a package for forward compatibility may have put a newer one in its place. Where a
    container lacks it, the driver tells what it would run.
    """
    try:
        return pynvml.nvmlSystemGetCudaDriverVersion_v2(), True
    except pynvml.NVMLError as error:
        known = _ask(pynvml.nvmlSystemGetCudaDriverVersion, default=0)
        return known, error.value != pynvml.NVML_ERROR_LIBRARY_NOT_FOUND


def _pci_device_id(number: int) -> str:
    """Turn NVML's number, the device above the vendor, into ``10de:2330``."""
    return f"{number & 0xFFFF:04x}:{number >> 16:04x}"


def _ask(question: Callable[..., Any], *arguments: Any, default: Any) -> Any:
    """Return the answer, or ``default`` for a question that this driver or device does not know.

    Raises:
        pynvml.NVMLError: the device is dead.
    """
    try:
        return question(*arguments)
    except pynvml.NVMLLibraryMismatchError:
        return default  # The driver lacks the function; some of the package's say so in this way.
    except pynvml.NVMLError as error:
        if error.value in _DEAD:
            raise
        return default


def _name(error: Any) -> str:
    return str(_ERRORS.get(error.value, error.value))


def main() -> None:
    """Write everything that is known to standard output, each line as soon as it is known."""
    for message in messages():
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
