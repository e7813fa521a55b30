"""Detects what this machine offers: cores, memory, and whether a port is free.

Detection never fails: what cannot be read is None, and the plan decides what that means.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import ExitCode, LaunchError


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about the machine, or about the container that limits it.

    Attributes:
        cores: CPU cores that this process may use, at least 1.
        memory_bytes: memory that can be taken without swapping; None when it cannot be told.
    """

    cores: int
    memory_bytes: int | None


def detect_machine(root: Path = Path("/")) -> Machine:
    """Look at the machine whose ``/proc`` and ``/sys`` lie under ``root``."""
    limits = [size for size in (_available(root), _group_headroom(root)) if size is not None]
    return Machine(cores=_cores(root), memory_bytes=min(limits) if limits else None)


def check_port(host: str, port: int) -> None:
    """Make sure that a server can listen here.

    Raises:
        LaunchError: the port is taken or forbidden, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # Without it, connections of a server that has just stopped would keep the port for a minute.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise _port_error(host, port, error) from error


def _port_error(host: str, port: int, error: OSError) -> LaunchError:
    if error.errno == errno.EADDRINUSE:
        message = f"port {port} is taken by another program"
        return LaunchError(ExitCode.PORT_UNAVAILABLE, message, "set NIM_SERVER_PORT to a free port")
    if error.errno in (errno.EACCES, errno.EPERM):
        message = f"port {port} may not be used by this user"
        return LaunchError(ExitCode.PORT_UNAVAILABLE, message, "set NIM_SERVER_PORT to a port from 1024 up")
    message = f"NIM_SERVER_HOST={host!r} is not an address of this machine"
    return LaunchError(ExitCode.BAD_SETTINGS, message, "use 0.0.0.0 or 127.0.0.1")


def _cores(root: Path) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read(root / "sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and all(part.isdigit() for part in quota) and int(quota[1]) > 0:  # noqa: PLR2004 - "quota period"
        cores = min(cores, int(quota[0]) // int(quota[1]))
    return max(cores, 1)


def _available(root: Path) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if name == "MemAvailable" and fields and fields[0].isdigit():
            return int(fields[0]) * 1024
    return None


def _group_headroom(root: Path) -> int | None:
    """Return what the container's memory limit leaves, by control groups version 2 or 1."""
    base = root / "sys/fs/cgroup"
    for folder, limit_name, usage_name, cache_key in (
        (base, "memory.max", "memory.current", "inactive_file"),
        (base / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = _read(folder / limit_name).strip(), _read(folder / usage_name).strip()
        if limit.isdigit() and usage.isdigit():
            # Cached file pages count as used, but the kernel drops them when memory is asked for.
            return max(int(limit) - int(usage) + _statistic(folder / "memory.stat", cache_key), 0)
    return None


def _statistic(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
