"""Systems that tests plan for: each file in ``tests/data/systems`` describes a machine.

``load`` turns a description into what ``launcher.hardware`` finds there, without compiling or starting anything.
That it is the same is proven in ``test_hardware.py`` with the real nvidia-ml-py over a stand-in of NVIDIA's library.
"""

from __future__ import annotations

import functools
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from config.devices import DeviceVariables, device_variables
from launcher.hardware.detection import Sources, System, detect
from launcher.hardware.gpu_messages import Device, Holder, Scan

DATA = Path(__file__).parents[1] / "data"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - Linux' file system in memory
MIB = 1024**2
GIB_IN_KIB = 1024**2


@dataclass(frozen=True)
class DescribedProcess:
    """A process on a GPU; ``memory`` in bytes, ``kind`` compute or graphics."""

    pid: int
    name: str
    memory: int | None
    kind: str


@dataclass(frozen=True)
class DescribedGpu:
    """A GPU, or a slice of one, as its driver would describe it."""

    name: str
    uuid: str
    pci: str
    capability: tuple[int, int]
    memory: tuple[int, int] | None
    memory_error: str = ""
    error: str = ""
    compute_mode: int = 0
    virtualization: int = 0
    fabric: int = 0
    mps: bool = False
    peers: tuple[int, ...] = ()
    processes: tuple[DescribedProcess, ...] = ()
    slices: tuple[DescribedGpu, ...] | None = None
    instances: tuple[int, int] | None = None
    profile: str | None = None
    sizes: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Described:
    """A machine: what NVML says there, and the files and variables around it."""

    title: str
    has_library: bool
    has_cuda: bool
    old_driver: bool
    nvml_error: str
    driver: str
    cuda: tuple[int, int]
    compatible: tuple[int, int] | None
    gpus: tuple[DescribedGpu, ...]
    variables: DeviceVariables
    fields: dict[str, Any]

    @property
    def cores(self) -> int:
        """Return the processors that the process may run on."""
        return int(self.fields["cpu"]["cores"])


def names() -> list[str]:
    """Return the names of all described systems."""
    return sorted(path.stem for path in (DATA / "systems").glob("*.yaml"))


@functools.cache
def load(name: str) -> System:
    """Return what detection finds on a described system."""
    system = describe(name)
    scan = expected_scan(system)
    with root_of(system) as root:
        return detect(Sources(root, system.cores, system.variables, lambda: scan))


@contextmanager
def root_of(system: Described) -> Iterator[Path]:
    """Provide a folder with the files of ``/dev``, ``/proc`` and ``/sys`` that detection reads on this system."""
    # A thousand small files and folders for all systems: in memory where that can be had.
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None) as folder:
        _write_root(system, Path(folder))
        yield Path(folder)


def describe(name: str) -> Described:
    """Read the description of a system."""
    fields = _read(DATA / "systems" / f"{name}.yaml")
    entries = [gpu for entry in fields["gpus"] for gpu in [entry] * entry.get("count", 1)]
    gpus = [_gpu(entry, f"{name}/{index}") for index, entry in enumerate(entries)]
    driver = fields.get("driver", {"version": "580.95.05", "cuda": "13.0"})
    return Described(
        title=fields["title"],
        has_library=fields.get("library") != "none",
        has_cuda=fields.get("library") not in ("none", "utility"),
        old_driver=driver.get("old", False),
        nvml_error=fields.get("nvml", {}).get("error", ""),
        driver=str(driver["version"]),
        cuda=_version(driver["cuda"]),
        compatible=_version(driver["compatible"]) if "compatible" in driver else None,
        gpus=tuple(replace(gpu, peers=peers) for gpu, peers in zip(gpus, _links(fields, gpus), strict=True)),
        variables=device_variables(fields.get("environment", {})),
        fields=fields,
    )


def expected_scan(system: Described) -> Scan:
    """Return what reading this system through NVML gives."""
    if not system.has_library:
        return Scan(error="LIBRARY_NOT_FOUND")
    if system.nvml_error:
        return Scan(error=system.nvml_error)
    devices = tuple(device for index, gpu in enumerate(system.gpus) for device in _devices(index, gpu, system))
    cuda = system.compatible or system.cuda
    return Scan(driver=system.driver, cuda=cuda, has_cuda=system.has_cuda, devices=devices)


def _write_root(system: Described, root: Path) -> None:
    for name, text in _files(system):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for index, driver in enumerate(system.fields.get("bus", ["nvidia"] * len(system.gpus))):
        if driver:
            folder = root / f"sys/bus/pci/drivers/{driver}"
            folder.mkdir(parents=True, exist_ok=True)
            (root / f"{_bus(index)}/driver").symlink_to(folder)


def _version(text: str) -> tuple[int, int]:
    major, minor = str(text).split(".")
    return int(major), int(minor)


def _gpu(entry: dict[str, Any], seed: str) -> DescribedGpu:
    model = {**_models()["gpus"][entry["model"]], **entry}
    processes = tuple(_process(fields) for fields in entry.get("processes", ()))
    gpu = DescribedGpu(
        name=model["name"],
        uuid=f"GPU-{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        pci=model["pci"],
        capability=tuple(model["capability"]),
        memory=_memory(model, processes),
        memory_error=entry.get("memory", {}).get("error", ""),
        error=entry.get("error", ""),
        compute_mode=entry.get("compute_mode", 0),
        virtualization=entry.get("virtualization", 0),
        fabric=entry.get("fabric", 0),
        mps=entry.get("mps", False),
        processes=processes,
    )
    if "mig" not in entry:
        return gpu
    return replace(gpu, slices=tuple(_slice(part, gpu, f"{seed}/{place}") for place, part in enumerate(entry["mig"])))


def _slice(fields: dict[str, Any], gpu: DescribedGpu, seed: str) -> DescribedGpu:
    processes = tuple(_process(process) for process in fields.get("processes", ()))
    whole, compute = fields["slices"]
    return replace(
        gpu,
        name=gpu.name if fields.get("unnamed") else f"{gpu.name} MIG {fields['profile']}",
        uuid=f"MIG-{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        memory=_memory(fields, processes),
        processes=processes,
        instances=tuple(fields["instances"]),
        profile=fields["profile"],
        sizes=(whole, compute, fields["memory_mib"]),
    )


def _process(fields: dict[str, Any]) -> DescribedProcess:
    memory = fields["mib"] * MIB if "mib" in fields else None
    return DescribedProcess(fields["pid"], fields.get("name", ""), memory, fields.get("kind", "compute"))


def _memory(fields: dict[str, Any], processes: tuple[DescribedProcess, ...]) -> tuple[int, int] | None:
    if "memory_mib" not in fields:
        return None
    total = fields["memory_mib"] * MIB
    used = (fields["reserved_mib"] + fields.get("used_mib", 0)) * MIB
    return total, total - used - sum(process.memory or 0 for process in processes)


def _links(fields: dict[str, Any], gpus: list[DescribedGpu]) -> Iterator[tuple[int, ...]]:
    groups = fields.get("nvlink", [])
    whole = [index for index, gpu in enumerate(gpus) if not gpu.error and gpu.slices is None]
    for index in range(len(gpus)):
        group = whole if groups == "all" else next((group for group in groups if index in group), [])
        yield tuple(other for other in group if other != index) if index in group else ()


def _devices(index: int, gpu: DescribedGpu, system: Described) -> Iterator[Device]:
    fatal = gpu.error or (gpu.memory_error if gpu.memory_error == "GPU_IS_LOST" else "")
    if fatal:
        yield Device(index, error=fatal)
        return
    for part in gpu.slices or (gpu,):
        # Old drivers lack the functions for the state of the fabric and for processes.
        yield Device(
            index,
            uuid=part.uuid,
            name=part.name,
            pci_device_id=part.pci,
            compute_capability=part.capability,
            memory=(0, 0) if part.memory_error else part.memory,
            compute_mode=part.compute_mode,
            virtualization=part.virtualization,
            fabric=0 if system.old_driver else part.fabric,
            mig_enabled=gpu.slices is not None,
            mig_profile=part.profile,
            mig_instances=part.instances,
            parent_uuid=gpu.uuid if part.profile else "",
            mps=part.mps,
            nvlink_peers=part.peers,
            processes=() if system.old_driver else tuple(_holders(part)),
        )


def _holders(gpu: DescribedGpu) -> Iterator[Holder]:
    for process in gpu.processes:
        yield Holder(process.pid, PurePosixPath(process.name).name or None, process.memory, process.kind == "compute")


def _files(system: Described) -> Iterator[tuple[str, str]]:
    fields, place = system.fields, system.fields.get("place", ())
    has_driver = system.has_library and not system.nvml_error and bool(system.gpus)
    memory = {key: int(fields["memory"][f"{key}_gib"] * GIB_IN_KIB) for key in ("total", "available")}
    yield "proc/cpuinfo", _cpuinfo(_models()["cpus"][fields["cpu"]["model"]])
    yield "proc/meminfo", f"MemTotal: {memory['total']} kB\nMemFree: 1024 kB\nMemAvailable: {memory['available']} kB\n"
    yield (
        "proc/sys/kernel/osrelease",
        "5.15.167.4-microsoft-standard-WSL2\n" if "wsl" in place else "6.8.0-86-generic\n",
    )
    yield "proc/self/cgroup", "0::/\n"
    for index in range(len(fields.get("bus", system.gpus))):
        yield f"{_bus(index)}/vendor", "0x10de\n"
        yield f"{_bus(index)}/class", "0x030200\n"
    numbered = [f"nvidia{index}" for index in range(len(system.gpus))]
    nodes = ["nvidiactl", "nvidia-uvm", *numbered] if has_driver else []
    yield from ((f"dev/{node}", "") for node in fields.get("nodes", nodes))
    if module := fields.get("module", system.driver if has_driver else ""):
        yield (
            "proc/driver/nvidia/version",
            f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {module}  Release\n",
        )
    marks = {"container": ".dockerenv", "wsl_gpu": "dev/dxg", "mps": "tmp/nvidia-mps/control"}
    yield from ((file, "") for mark, file in marks.items() if mark in place)
    if group := fields.get("group"):
        yield "sys/fs/cgroup/memory.max", f"{int(group['memory_gib'] * 1024**3)}\n"
        yield "sys/fs/cgroup/memory.current", f"{int(group['used_gib'] * 1024**3)}\n"
        yield "sys/fs/cgroup/cpu.max", f"{group['cpus'] * 100_000} 100000\n"


def _bus(index: int) -> str:
    return f"sys/bus/pci/devices/0000:{0x10 + 0x10 * index:02x}:00.0"


def _cpuinfo(cpu: dict[str, Any]) -> str:
    features = " ".join(cpu["features"])
    if cpu["vendor"] == "x86":
        blocks = [f"processor : {index}\nmodel name : {cpu['model']}\nflags : {features}\n" for index in range(2)]
    else:
        blocks = [
            f"processor : {index}\nFeatures : {features}\nCPU implementer : 0x41\nCPU part : {part}\n"
            for index, part in enumerate(cpu["parts"])
        ]
    return "\n".join(blocks)


@functools.cache
def _models() -> dict[str, Any]:
    return _read(DATA / "gpu_models.yaml")


def _read(path: Path) -> dict[str, Any]:
    # The loader in C is ten times as fast, where PyYAML has it.
    fields: dict[str, Any] = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return fields
