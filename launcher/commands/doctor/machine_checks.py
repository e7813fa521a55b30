"""Checks of the machine: GPUs and driver, processor, shared memory, limits, clock, temporary files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from launcher.commands.doctor.findings import Finding, Findings, Status, doubt, failure, fine, note
from launcher.commands.engines import GPU_ENGINES
from launcher.commands.profile_listing import is_free
from launcher.errors import ExitCode, LaunchError
from launcher.hardware.system import Gpu, System
from launcher.plan.assess import missing_feature
from launcher.plan.planner import Plan, gib
from launcher.workspace import unwritable

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - looked at, not written to
LEAST_SHARED_MEMORY: Final = 2**30
LEAST_FILES: Final = 256
USUAL_FILES: Final = 4096
LEAST_PROCESSES: Final = 256
SOCKET_PATH_BYTES: Final = 107
WORKSPACE_NAME_BYTES: Final = len("/g4nim-xxxxxxxx/engine.sock")
LEAST_TEMPORARY: Final = 64 * 2**20
DAY_S: Final = 86_400


def check_gpus(system: System, engines: frozenset[str]) -> Findings:
    """Look at driver and GPUs; without an engine that uses them their faults do not stop a start."""
    needs_gpu = bool(engines & GPU_ENGINES)
    for problem in system.problems:
        status = Status.WARNING if needs_gpu else Status.NOTE
        yield Finding("GPU", status, problem.what, problem.remedy)
    if system.driver is not None:
        cuda = ".".join(str(part) for part in system.driver.cuda)
        yield fine("driver", f"NVIDIA {system.driver.version}, CUDA up to {cuda}")
    for gpu in system.gpus:
        yield _gpu(gpu)
    if not system.gpus and not system.problems:
        remedy = "give the container its GPUs with --gpus all" if needs_gpu else ""
        yield note("GPU", "no NVIDIA GPU: the model is computed by the processor", remedy)
    if system.gpus and not needs_gpu:
        yield note("GPU", "no engine for GPUs is installed: the processor does the work")


def _gpu(gpu: Gpu) -> Finding:
    name = f"GPU {gpu.index}"
    if gpu.problem is not None:
        return doubt(name, f"{gpu.name}: {gpu.problem.what}", gpu.problem.remedy)
    room = f"{gpu.name}, {gib(gpu.memory_free)} of {gib(gpu.memory_total)} free"
    if is_free(gpu):
        return fine(name, room)
    holders = [f"{process.name or 'a process'} (pid {process.pid})" for process in gpu.processes[:3]]
    by = f", held by {', '.join(holders)}" if holders else ""
    return doubt(name, f"{room}{by}", "stop what uses it for a longer context; what is free is used as it is")


def check_processor(system: System) -> Findings:
    """Look at instructions and cores."""
    missing = missing_feature(system)
    words = f"{system.cpu_model or 'unknown processor'}, {system.cores} core{'s' if system.cores > 1 else ''}"
    if missing:
        error = LaunchError(ExitCode.NO_USABLE_HARDWARE, missing, "use a processor with AVX2, or a GPU and its image")
        yield failure("processor", error)
    elif system.cores == 1:
        yield doubt("processor", f"{words}: server and engine share it", "give the container two cores or more")
    else:
        yield fine("processor", words)


def check_shared_memory(plan: Plan | None) -> Findings:
    """Look at /dev/shm, through which the processes of an engine on several GPUs talk."""
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError:
        usage = None
    several = plan is not None and plan.tensor_parallel > 1
    if usage is not None and (usage.free >= LEAST_SHARED_MEMORY or not several):
        need = "" if several else "; one GPU, or none, needs little"
        yield fine("shared memory", f"{gib(usage.free)} free in {SHARED_MEMORY}{need}")
    elif several:
        room = "no" if usage is None else gib(usage.free)
        message = f"{room} shared memory in {SHARED_MEMORY}, and several GPUs need it to talk to each other"
        yield doubt("shared memory", message, "start the container with --shm-size=16g")


def check_limits() -> Findings:
    """Look at the limits of this user's processes."""
    files, processes = (_soft(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    remedy = "raise it: ulimit -n 65536, or docker run --ulimit nofile=65536:65536"
    if files < LEAST_FILES:
        error = LaunchError(ExitCode.CANNOT_START, f"only {files:.0f} files may be open at once", remedy)
        yield failure("open files", error)
    elif files < USUAL_FILES:
        yield doubt("open files", f"{files:.0f} at once; each client takes one", remedy)
    else:
        yield fine("open files", f"{_count(files)} at once")
    if processes < LEAST_PROCESSES:
        message = f"only {processes:.0f} processes and threads of this user"
        yield doubt("processes", message, "raise it: ulimit -u 4096, or docker run --ulimit nproc=4096")
    memory = _soft(resource.RLIMIT_AS)
    if memory != float("inf"):
        yield doubt("address space", f"limited to {gib(memory)}: models are mapped into it", "ulimit -v unlimited")


def check_clock() -> Findings:
    """See that the clock is not behind this program, which would make certificates look invalid."""
    built = Path(__file__).stat().st_mtime
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < built - DAY_S:
        message = f"the clock says {shown}, which is before this program was installed"
        yield doubt("clock", f"{message}: downloads over TLS will fail", "set the host's clock")
    else:
        yield fine("clock", shown)


def check_temporary_folder() -> Findings:
    """See that the folder for sockets and records can be written and has a short name."""
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield failure("temporary files", unwritable(error))
        return
    if len(os.fsencode(folder)) + WORKSPACE_NAME_BYTES > SOCKET_PATH_BYTES:
        message = f"{folder} is too long for a socket's name"
        yield failure("temporary files", LaunchError(ExitCode.CANNOT_START, message, "set TMPDIR to a shorter path"))
    elif free < LEAST_TEMPORARY:
        yield doubt("temporary files", f"{gib(free)} free in {folder}", "free some, or set TMPDIR to another folder")
    else:
        yield fine("temporary files", f"{folder} can be written")


def _soft(kind: int) -> float:
    soft = resource.getrlimit(kind)[0]
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)


def _count(number: float) -> str:
    return "any number" if number == float("inf") else f"{number:.0f}"
