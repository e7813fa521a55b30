"""Memory and disk of this machine, or of the container that limits it: /proc/meminfo, control groups, file systems.

Nothing here fails for want of a file: what cannot be read is None, and whoever plans decides what that means.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GROUPS: Final = "sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of random access memory; None where it cannot be told.

    Attributes:
        total: what there is.
        available: what can be taken without swapping: free memory and what the kernel gives back on demand.
    """

    total: int | None
    available: int | None


def host_memory(root: Path = Path("/")) -> Memory:
    """Return what the kernel says of the whole machine, whatever limits this process."""
    figures = _meminfo(root)
    return Memory(figures.get("MemTotal"), figures.get("MemAvailable"))


def usable_memory(root: Path = Path("/")) -> Memory:
    """Return what this process may use: the smallest of the machine and of every control group around the process."""
    host = host_memory(root)
    limits = list(_memory_limits(root))
    return Memory(
        total=_smallest(host.total, *(limit for limit, _ in limits)),
        available=_smallest(host.available, *(left for _, left in limits)),
    )


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, from its own to the outermost that can be seen.

    Args:
        root: where ``/proc`` and ``/sys`` lie.
        controller: a controller of version 1, such as ``memory``; ``""`` yields the groups of version 2.
    """
    base = root / GROUPS
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            # Inside a container the path may be the host's, which does not exist here; then the root is our own group.
            own = Path(path.strip().lstrip("/"))
            mounts = [base / name for name in ("", "unified")] if not controller else [base / controllers]
            for mount in (*mounts, base / controller):
                yield from (mount / part for part in (own, *own.parents) if ".." not in part.parts)
            return
    # Without /proc/self/cgroup the usual places are all there is to try.
    yield base / controller


def read_text(path: Path) -> str:
    """Return the content of a file of the kernel's, or nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _meminfo(root: Path) -> dict[str, int]:
    figures = {}
    for line in read_text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            figures[name] = int(fields[0]) * 1024
    return figures


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, what is left of it) in bytes of every group that has one."""
    for controller, limits, usage_name, cache_key in (
        ("", ("memory.max", "memory.high"), "memory.current", "inactive_file"),
        ("memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in dict.fromkeys(control_groups(root, controller)):
            texts = [read_text(group / name).strip() for name in limits]
            limit = min((int(text) for text in texts if text.isdigit()), default=None)
            usage = read_text(group / usage_name).strip()
            if limit is not None and usage.isdigit():
                # Cached file pages count as used, but the kernel drops them when memory is asked for.
                used = int(usage) - _statistic(group / "memory.stat", cache_key)
                yield limit, max(limit - max(used, 0), 0)


def _statistic(path: Path, key: str) -> int:
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _smallest(*sizes: int | None) -> int | None:
    return min((size for size in sizes if size is not None), default=None)


def is_writable(path: Path) -> bool:
    """Tell whether this user may read and write a file or device."""
    return os.access(path, os.R_OK | os.W_OK)
