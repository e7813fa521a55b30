"""Builds the stand-in for NVML and lays out, for one described system, what it answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pynvml

from tests.launcher.systems import Described, DescribedGpu

SOURCE = Path(__file__).with_name("nvml.c")
NAME = "libnvidia-ml.so.1"
COMPILER = shutil.which("cc")


def compile_library(folder: Path, *, old_driver: bool = False) -> Path:
    """Compile the stand-in into ``folder``; an old driver lacks the functions that newer ones have brought."""
    target = folder / ("old-" + NAME if old_driver else NAME)
    options = ["-DOLD_DRIVER"] if old_driver else []
    subprocess.run(
        [str(COMPILER), "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *options, "-o", target, SOURCE, "-ldl"],
        check=True,
    )
    return target


def lay_out(folder: Path, library: Path | None, facts: Iterable[tuple[str, object]] = ()) -> Path:
    """Make a folder for ``LD_LIBRARY_PATH`` in which the stand-in answers with ``facts``.

    Args:
        folder: to be made.
        library: the stand-in for NVML; None hides any that the machine may have.
        facts: what is asked of the stand-in, and what it answers.
    """
    folder.mkdir()
    if library is None:
        # An empty file ends the loader's search, so that a driver which this machine may have is not found either.
        (folder / NAME).touch()
    else:
        (folder / NAME).symlink_to(library)
    (folder / "nvml.txt").write_text("".join(f"{key}={value}\n" for key, value in facts))
    return folder


def facts(system: Described) -> Iterator[tuple[str, object]]:
    """Yield what the library answers on this system."""
    if system.nvml_error:
        yield "system.init", error(system.nvml_error)
    yield "system.driver", system.driver
    yield "system.cuda", _number(system.cuda)
    yield (
        "system.cuda_library",
        _number(system.compatible or system.cuda) if system.has_cuda else error("LIBRARY_NOT_FOUND"),
    )
    yield "system.count", len(system.gpus)
    for index, gpu in enumerate(system.gpus):
        if gpu.error:
            yield f"gpu.{index}.handle", error(gpu.error)
        yield from _gpu(f"gpu.{index}", gpu)
        for position, part in enumerate(gpu.slices or ()):
            # Every other place is empty, as after slices in between were taken away.
            yield from _gpu(f"gpu.{index}.mig.{2 * position}", part)
        if gpu.slices is not None:
            yield f"gpu.{index}.mig_mode", 1
            yield f"gpu.{index}.mig_places", 7


def error(name: str) -> str:
    """Return the value that makes a call fail."""
    return f"!{getattr(pynvml, f'NVML_ERROR_{name}')}"


def _number(version: tuple[int, int]) -> int:
    return version[0] * 1000 + version[1] * 10


def _gpu(prefix: str, gpu: DescribedGpu) -> Iterator[tuple[str, object]]:
    vendor, device = gpu.pci.split(":")
    yield f"{prefix}.name", gpu.name
    yield f"{prefix}.uuid", gpu.uuid
    yield f"{prefix}.pci", f"0x{device}{vendor}"
    yield f"{prefix}.capability", f"{gpu.capability[0]} {gpu.capability[1]}"
    yield f"{prefix}.compute_mode", gpu.compute_mode
    yield f"{prefix}.virtualization", gpu.virtualization
    if gpu.memory_error:
        yield f"{prefix}.memory", error(gpu.memory_error)
    elif gpu.memory is not None:
        yield f"{prefix}.memory", f"{gpu.memory[0]} {gpu.memory[1]}"
    if gpu.fabric:
        yield f"{prefix}.fabric", gpu.fabric
    if gpu.peers:
        yield f"{prefix}.peers", " ".join(map(str, gpu.peers))
    if gpu.instances is not None:
        yield f"{prefix}.gpu_instance", gpu.instances[0]
        yield f"{prefix}.compute_instance", gpu.instances[1]
        yield f"{prefix}.attributes", f"{gpu.sizes[0]} {gpu.sizes[1]} {gpu.sizes[2]}"
    for kind in ("compute", "graphics"):
        found = [process for process in gpu.processes if process.kind == kind]
        listed = [f"{process.pid} {'-' if process.memory is None else process.memory}" for process in found]
        yield f"{prefix}.{kind}_processes", " ".join(listed)
    if gpu.mps:
        yield f"{prefix}.mps_processes", "99 0"
    yield from ((f"process.{process.pid}", process.name) for process in gpu.processes if process.name)
