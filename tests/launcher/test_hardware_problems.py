"""Problems that no described system has, or that depend on more than one fact."""

from __future__ import annotations

import pytest

from launcher.hardware.driver_problems import REQUIRED_CUDA, driver_problem, scan_problem
from launcher.hardware.gpu_messages import CRASHED, HUNG, NO_PACKAGE, Device, Scan, assemble
from launcher.hardware.gpu_problems import device_problem
from launcher.hardware.gpu_signs import Signs

HOST = Signs(pci=("0000:01:00.0",), bound=frozenset({"nvidia"}), nodes=("/dev/nvidia0", "/dev/nvidiactl"))
INSIDE = Signs(pci=("0000:01:00.0",), nodes=("/dev/nvidia0",), container=True)


@pytest.mark.parametrize(
    ("error", "signs", "code", "words"),
    [
        (HUNG, HOST, "driver-hung", "restart the host"),
        (CRASHED, HOST, "driver-crashed", "nvidia-smi"),
        (NO_PACKAGE, Signs(), "package-missing", "pip install nvidia-ml-py"),
        ("CORRUPTED_INFOROM", HOST, "driver-failed", "CORRUPTED_INFOROM"),
        ("12345", HOST, "driver-failed", "12345"),
        ("UNKNOWN", HOST, "driver-failed", "dmesg"),
        ("UNKNOWN", INSIDE, "gpu-access-lost", "restart the container"),
        ("NO_PERMISSION", HOST, "permission", "usermod"),
        ("NO_PERMISSION", INSIDE, "permission", "--gpus all"),
        ("DRIVER_NOT_LOADED", Signs(nodes=HOST.nodes, denied=("/dev/nvidiactl",)), "permission", "/dev/nvidiactl"),
        ("DRIVER_NOT_LOADED", HOST, "driver-not-loaded", "modprobe"),
        ("DRIVER_NOT_LOADED", INSIDE, "driver-missing", "--gpus all"),
        ("LIBRARY_NOT_FOUND", HOST, "driver-missing", "nvidia-utils"),
        ("", INSIDE, "driver-missing", "--gpus all"),
    ],
)
def test_an_error_means_different_things_in_different_places(error: str, signs: Signs, code: str, words: str) -> None:
    """The remedy fits where the launcher runs."""
    problem = scan_problem(Scan(error=error), signs)

    assert problem is not None
    assert problem.code == code
    assert words in f"{problem.what}; {problem.remedy}"


@pytest.mark.parametrize("error", ["LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED", ""])
def test_without_any_sign_of_a_gpu_there_is_no_problem(error: str) -> None:
    """A missing driver is a problem only where there is something to drive."""
    assert scan_problem(Scan(error=error), Signs()) is None


@pytest.mark.parametrize(
    ("cuda", "too_old"), [((12, 9), True), ((0, 0), True), (REQUIRED_CUDA, False), ((13, 2), False)]
)
def test_minor_versions_of_cuda_do_not_matter(cuda: tuple[int, int], too_old: bool) -> None:
    """A driver of CUDA 13.0 runs what is built with 13.2, and one of 12.9 runs none of it."""
    assert (driver_problem(Scan(driver="575.1", cuda=cuda, devices=(Device(0),)), HOST) is not None) == too_old


def test_a_gpu_that_cannot_be_read_names_the_error() -> None:
    """Errors without an explanation of their own are shown as NVML calls them."""
    problem = device_problem(Device(2, error="IRQ_ISSUE"), HOST)

    assert problem is not None
    assert problem.code == "gpu-lost"
    assert problem.what == "GPU 2 cannot be read (IRQ_ISSUE)"


def test_a_report_that_breaks_off_counts_as_far_as_it_goes() -> None:
    """Every GPU that was announced appears, and those that were not told say why."""
    head = {"driver": "580.1", "count": 3, "cuda": [13, 0], "has_cuda": True}

    scan = assemble([head], HUNG)

    assert [(device.index, device.error) for device in scan.devices] == [(0, HUNG), (1, HUNG), (2, HUNG)]
    assert assemble([], "") == Scan(error=CRASHED)
    assert assemble([{"error": "UNKNOWN"}], "") == Scan(error="UNKNOWN")
