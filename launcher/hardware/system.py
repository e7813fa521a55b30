"""The shapes in which the launcher speaks of hardware: a system, its GPUs, and what is wrong with them.

Facts only: ``launcher.hardware.detection`` fills them in, the plan and the commands read them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a person should know or repair.

    Attributes:
        code: a short stable name for programs, such as ``driver-too-old``; ``docs/hardware.md`` lists all.
        what: one sentence that names the thing.
        remedy: what to do, with a command or a variable that works.
    """

    code: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU.

    Attributes:
        pid: as the driver says; inside a container it may be the host's number.
        name: program without its folder; None when the driver does not tell.
        memory: bytes; None when the driver does not tell.
    """

    pid: int
    name: str | None
    memory: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device that CUDA can use: a GPU, or one MIG slice of it.

    Attributes:
        index: NVML's index, as ``nvidia-smi`` counts; slices have that of their GPU.
        uuid: ``GPU-...`` or ``MIG-...``; empty for a GPU that no longer answers, and for one that is only imagined.
        name: as the driver says: ``NVIDIA H100 80GB HBM3``.
        pci_device_id: ``vendor:device`` in hexadecimal, such as ``10de:2330``.
        memory_total: bytes; of the slice where it is one; of the machine where ``unified_memory`` is set.
        memory_free: bytes of ``memory_total`` that nobody uses.
        mig_profile: ``3g.40gb``; None for a whole GPU. CUDA gives a process one slice at most.
        unified_memory: GPU and processor share one memory.
        nvlink_peers: indices of GPUs that are reached by NVLink, directly or through switches.
        problem: why this device cannot be used; None when it can.
    """

    index: int
    uuid: str
    name: str
    pci_device_id: str
    compute_capability: tuple[int, int]
    memory_total: int
    memory_free: int
    mig_profile: str | None = None
    unified_memory: bool = False
    nvlink_peers: frozenset[int] = frozenset()
    processes: tuple[GpuProcess, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: ``580.95.05``.
        cuda: the highest CUDA version that it runs, a package for forward compatibility included.
    """

    version: str
    cuda: tuple[int, int]


@dataclass(frozen=True, slots=True)
class System:
    """Everything that a plan needs to know of the machine.

    Attributes:
        gpus: the visible ones, in the order of ``CUDA_VISIBLE_DEVICES``, else in the driver's.
        driver: None without a working NVIDIA driver.
        cores: logical processors that this process may use, at least 1.
        cpu_features: as the kernel names them: ``avx2``, ``avx512f``, ``amx_int8``, ``neon``.
        memory_total: bytes of RAM, the smaller of machine and container; None when it cannot be told.
        memory_available: bytes of it that can be taken without swapping.
        problems: of the system as a whole, for people; a device that cannot be used says so itself.
    """

    gpus: tuple[Gpu, ...]
    driver: Driver | None
    cpu_model: str
    cores: int
    cpu_features: frozenset[str]
    memory_total: int | None
    memory_available: int | None
    problems: tuple[Problem, ...] = ()
