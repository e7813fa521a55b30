"""Signs of an NVIDIA GPU that need no driver: the PCI bus, device files, and where this process runs.

They tell a machine without a GPU, where a missing driver is nobody's problem, from one whose GPU cannot be reached, and
they make the remedy fit: a container needs another command line, Windows another driver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launcher.hardware.host_memory import is_writable, read_text

NVIDIA: Final = "0x10de"
"""PCI vendor of NVIDIA."""
_DISPLAY: Final = "0x03"
"""PCI base class of GPUs: graphics and 3D controllers; NVIDIA's switches and network cards have others."""
_CONTAINER_MARKS: Final = (".dockerenv", "run/.containerenv", "run/secrets/kubernetes.io")
"""What Docker, Podman and Kubernetes leave inside."""
_MPS_PIPES: Final = "/tmp/nvidia-mps"  # noqa: S108 - NVIDIA's default
_MODULE_VERSION: Final = re.compile(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b")


@dataclass(frozen=True, slots=True)
class Signs:
    """What there is to see of GPUs without asking a driver.

    Attributes:
        pci: address of each NVIDIA GPU on the bus, of the whole host also inside a container.
        bound: kernel drivers that hold these GPUs, such as ``nvidia``, ``nouveau`` or ``vfio-pci``.
        nodes: device files of NVIDIA's driver, such as ``/dev/nvidia0``.
        denied: those of them that this user may not open.
        uvm: the device file of the driver's memory management is here; outside a container it appears when needed.
        module: version of the loaded kernel module; empty when it cannot be told.
        wsl: this is Windows' Linux.
        wsl_gpu: Windows lends it a GPU.
        container: this is a container.
        mps: the pipes of an MPS server can be seen from here.
    """

    pci: tuple[str, ...] = ()
    bound: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    uvm: bool = False
    module: str = ""
    wsl: bool = False
    wsl_gpu: bool = False
    container: bool = False
    mps: bool = False

    @property
    def any(self) -> bool:
        """Return whether there is a GPU of NVIDIA's, as far as can be seen."""
        return bool(self.pci or self.nodes or self.wsl_gpu)


def read_signs(root: Path = Path("/"), mps_pipes: str | None = None) -> Signs:
    """Look under ``root`` for ``/dev``, ``/proc`` and ``/sys``.

    Args:
        root: of the file system.
        mps_pipes: folder where an MPS server listens; None for its usual one.
    """
    gpus = [device for device in _entries(root / "sys/bus/pci/devices") if _is_gpu(device)]
    nodes = [f"/dev/{path.name}" for path in _entries(root / "dev") if re.fullmatch(r"nvidia(ctl|\d+)", path.name)]
    found = _MODULE_VERSION.search(read_text(root / "proc/driver/nvidia/version"))
    return Signs(
        pci=tuple(device.name for device in gpus),
        bound=frozenset(device.joinpath("driver").resolve().name for device in gpus if (device / "driver").exists()),
        nodes=tuple(nodes),
        denied=tuple(node for node in nodes if not is_writable(root / node.lstrip("/"))),
        uvm=(root / "dev/nvidia-uvm").exists(),
        module=found.group(1) if found else "",
        wsl="microsoft" in read_text(root / "proc/sys/kernel/osrelease").lower(),
        wsl_gpu=(root / "dev/dxg").exists(),
        container=any((root / name).exists() for name in _CONTAINER_MARKS),
        mps=(root / (mps_pipes or _MPS_PIPES).lstrip("/")).exists(),
    )


def _is_gpu(device: Path) -> bool:
    is_nvidia = read_text(device / "vendor").strip().lower() == NVIDIA
    return is_nvidia and read_text(device / "class").strip().startswith(_DISPLAY)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
