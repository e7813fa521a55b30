"""Says why no GPU can be read, and whether the driver will do, each with a remedy that fits this place. Pure."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from launcher.hardware.gpu_messages import CRASHED, HUNG, NO_PACKAGE, Scan
from launcher.hardware.gpu_signs import Signs
from launcher.hardware.system import Problem

REQUIRED_CUDA: Final = (13, 0)
"""TensorRT-LLM 1.4 and vLLM are built with CUDA 13, and a driver runs every minor version of the major one it knows."""
REQUIRED_DRIVER: Final = "580.65.06"
"""The first driver with CUDA 13.0 on Linux: release notes of the CUDA Toolkit 13.0, table of toolkit and driver."""
CONTAINER_FLAGS: Final = (
    "--gpus all (Docker), --device nvidia.com/gpu=all (Podman) or resources.limits nvidia.com/gpu: 1 (Kubernetes)"
)


def scan_problem(scan: Scan, signs: Signs) -> Problem | None:
    """Explain why no GPU could be read; None when GPUs were read, or when there is none to read."""
    if scan.error in _FAILURES:
        return _FAILURES[scan.error](signs)
    if scan.error:
        what = f"NVIDIA's driver does not answer: NVML says {scan.error}"
        return Problem("driver-failed", what, "run nvidia-smi; restart the machine if it fails, too")
    if scan.devices or not signs.any:
        return None
    if signs.container or not signs.pci:
        return _nothing_attached(signs)
    return Problem(
        "driver-sees-no-gpu",
        f"driver {scan.driver} works and finds no GPU, though there is one (PCI {signs.pci[0]})",
        "look into dmesg for NVRM; a GPU newer than the driver needs a newer one, with open kernel modules",
    )


def driver_problem(scan: Scan, signs: Signs) -> Problem | None:
    """Tell why no GPU can be used though all can be seen: the driver is too old for the engines, or not all here."""
    if not scan.devices:
        return None
    if not scan.has_cuda:
        return Problem(
            "cuda-missing",
            "GPUs can be seen, but not used: the driver's library libcuda.so.1 is not here",
            "start the container with -e NVIDIA_DRIVER_CAPABILITIES=compute,utility"
            if signs.container
            else "install the driver's package with libcuda.so.1, such as libnvidia-compute, in the same version",
        )
    if signs.container and signs.nodes and not signs.uvm:
        return Problem(
            "cuda-missing",
            "GPUs can be seen, but not used: the container lacks /dev/nvidia-uvm, and CUDA does not start without it",
            "run sudo nvidia-modprobe -u -c 0 on the host, then start the container anew",
        )
    if scan.cuda >= REQUIRED_CUDA:
        return None
    return Problem(
        "driver-too-old",
        f"driver {scan.driver} runs CUDA {dotted(scan.cuda)} at most, and the GPU engines are built with "
        f"CUDA {dotted(REQUIRED_CUDA)}",
        f"install driver {REQUIRED_DRIVER} or newer on the host; the version inside a container does not matter",
    )


def _missing(signs: Signs) -> Problem | None:
    """Return what to say when there is no NVML library: nothing on a machine without a GPU."""
    if signs.wsl_gpu:
        return Problem(
            "wsl",
            "Windows lends this Linux a GPU, and NVIDIA's library (libnvidia-ml.so.1) is not here",
            "install NVIDIA's driver on Windows, none inside WSL; run wsl --update; start containers with --gpus all",
        )
    if signs.nodes:
        return Problem(
            "driver-missing",
            f"{signs.nodes[0]} is here, but not NVIDIA's library libnvidia-ml.so.1",
            "start the container with -e NVIDIA_DRIVER_CAPABILITIES=compute,utility"
            if signs.container
            else "install the driver's package with nvidia-smi, such as nvidia-utils, in the kernel module's version",
        )
    return _nothing_attached(signs) if signs.pci else None


def _nothing_attached(signs: Signs) -> Problem:
    where = f"PCI {signs.pci[0]}" if signs.pci else (*signs.nodes, "/dev/dxg")[0]
    there = f"there is an NVIDIA GPU ({where}), and none can be used here"
    if signs.container:
        return Problem("driver-missing", f"{there}: the container was given none", f"start it with {CONTAINER_FLAGS}")
    if "vfio-pci" in signs.bound:
        what = f"{there}: it is kept for a virtual machine"
        return Problem("driver-missing", what, "take it back from vfio-pci, or run in that machine")
    other = f": {'nouveau drives it' if 'nouveau' in signs.bound else 'NVIDIA has no driver here'}"
    return Problem("driver-missing", there + other, f"install NVIDIA's driver, {REQUIRED_DRIVER} or newer")


def _not_loaded(signs: Signs) -> Problem | None:
    if signs.denied:
        return _permission(signs)
    if not signs.any:
        return None  # The library alone, as in images made for GPUs, on a machine without one.
    if signs.container or not signs.pci:
        return _nothing_attached(signs)
    what = "NVIDIA's driver is installed, but its kernel module is not loaded"
    return Problem("driver-not-loaded", what, "run sudo modprobe nvidia and look into dmesg; after an update, restart")


def _permission(signs: Signs) -> Problem:
    node = (*signs.denied, "/dev/nvidiactl")[0]
    remedy = (
        f"start the container with {CONTAINER_FLAGS} instead of passing device files, "
        f"or with --group-add for the group that owns {node}"
        if signs.container
        else f"ls -l {node} shows the group that may, often video; sudo usermod -aG GROUP $USER, then log in again"
    )
    return Problem("permission", f"this user may not open {node}, so no GPU can be used", remedy)


def _mismatch(signs: Signs) -> Problem:
    loaded = f" ({signs.module})" if signs.module else ""
    what = f"the kernel module of NVIDIA's driver{loaded} and its library have different versions: it was updated"
    return Problem("driver-mismatch", what, "restart the host; then start this container anew")


def _access_lost(signs: Signs) -> Problem:
    if not signs.container:
        what = "NVIDIA's driver fails with an unknown error"
        return Problem("driver-failed", what, "look into dmesg for NVRM and Xid, and restart the machine")
    return Problem(
        "gpu-access-lost",
        "the container has lost its GPUs; systemctl daemon-reload on the host does that to containers that systemd's "
        "control groups limit",
        'restart the container; to prevent it, use CDI, or set "native.cgroupdriver=cgroupfs" in Docker\'s exec-opts',
    )


def _hung(_: Signs) -> Problem:
    what = "NVIDIA's driver does not answer: the query hung and was given up"
    return Problem("driver-hung", what, "look into dmesg for NVRM and Xid, and restart the host")


def _crashed(_: Signs) -> Problem:
    what = "the query of NVIDIA's driver crashed; library and driver may not fit together"
    return Problem("driver-crashed", what, "run nvidia-smi; if it fails, too, install the driver anew")


def _no_package(_: Signs) -> Problem:
    what = "the Python package nvidia-ml-py is not installed, so GPUs cannot be seen"
    return Problem("package-missing", what, "pip install nvidia-ml-py")


_FAILURES: Final[MappingProxyType[str, Callable[[Signs], Problem | None]]] = MappingProxyType(
    {
        "LIBRARY_NOT_FOUND": _missing,
        "DRIVER_NOT_LOADED": _not_loaded,
        "NO_PERMISSION": _permission,
        "LIB_RM_VERSION_MISMATCH": _mismatch,
        "UNKNOWN": _access_lost,
        HUNG: _hung,
        CRASHED: _crashed,
        NO_PACKAGE: _no_package,
    }
)


def dotted(version: tuple[int, int]) -> str:
    """Write a version, 12.8."""
    return f"{version[0]}.{version[1]}"
