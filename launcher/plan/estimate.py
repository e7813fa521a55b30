"""Imagines a machine from words such as ``2xL40S``, so that plans can be made for hardware that is not there."""

from __future__ import annotations

from typing import Final

from config.gpus import GpuModel, read_gpus
from launcher.hardware.system import Driver, Gpu, System

FREE_SHARE: Final = 0.985
"""What an idle GPU has free: the driver keeps some of it."""
USUAL_MEMORY_PER_GPU: Final = 64 * 2**30
USUAL_CORES: Final = 16


def imagined_system(gpus: str, memory_bytes: int | None = None, cores: int = USUAL_CORES) -> System:
    """Return an idle machine with these GPUs and enough main memory unless it is given.

    Args:
        gpus: such as ``2xL40S`` or ``1xH100,2xL4``; empty for none.
        memory_bytes: main memory.
        cores: of the processor.

    Raises:
        ConfigError: a GPU is not known.
    """
    devices: list[Gpu] = []
    for count, model in read_gpus(gpus) if gpus.strip() else ():
        first = len(devices)
        group = frozenset(range(first, first + count))
        devices.extend(_gpu(model, index, group) for index in sorted(group))
    memory = memory_bytes or USUAL_MEMORY_PER_GPU * max(len(devices), 1)
    return System(
        gpus=tuple(devices),
        driver=Driver("imagined", (99, 0)) if devices else None,
        cpu_model="imagined processor",
        cores=cores,
        cpu_features=frozenset(),
        memory_total=memory,
        memory_available=memory,
    )


def _gpu(model: GpuModel, index: int, group: frozenset[int]) -> Gpu:
    return Gpu(
        index=index,
        uuid="",
        name=model.name,
        pci_device_id="",
        compute_capability=model.compute_capability,
        memory_total=model.memory_bytes,
        memory_free=int(model.memory_bytes * FREE_SHARE),
        unified_memory=model.unified,
        nvlink_peers=group - {index} if model.nvlink else frozenset(),
    )
