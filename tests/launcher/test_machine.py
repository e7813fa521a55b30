"""What the launcher finds out about the machine it runs on."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from launcher.errors import ExitCode, LaunchError
from launcher.machine import check_port, detect_machine

GIB = 2**30


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    """Outside a container MemAvailable decides."""
    root = _write(tmp_path, {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {4 * GIB // 1024} kB\n"})

    assert detect_machine(root).memory_bytes == 4 * GIB


def test_container_limit_decides_where_it_is_smaller(tmp_path: Path) -> None:
    """In a container the limit less the use counts; file pages in the cache count as free."""
    root = _write(
        tmp_path,
        {
            "proc/meminfo": f"MemAvailable: {64 * GIB // 1024} kB\n",
            "sys/fs/cgroup/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        },
    )

    assert detect_machine(root).memory_bytes == 6 * GIB


def test_container_limit_of_the_older_kind_is_understood(tmp_path: Path) -> None:
    """Control groups version 1 have other file names."""
    root = _write(
        tmp_path,
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
        },
    )

    assert detect_machine(root).memory_bytes == GIB


def test_unlimited_container_changes_nothing(tmp_path: Path) -> None:
    """The word ``max`` is no limit."""
    root = _write(
        tmp_path,
        {
            "proc/meminfo": f"MemAvailable: {GIB // 1024} kB\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "5\n",
        },
    )

    assert detect_machine(root).memory_bytes == GIB


def test_unknown_memory_is_none_not_a_guess(tmp_path: Path) -> None:
    """Where nothing can be read, detection says so and does not fail."""
    assert detect_machine(tmp_path).memory_bytes is None


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_cpu_quota_limits_the_cores(tmp_path: Path, quota: str, expected: int | None) -> None:
    """A container's share of CPU counts in whole cores, at least one."""
    machine = detect_machine(_write(tmp_path, {"sys/fs/cgroup/cpu.max": quota}))

    assert machine.cores == (expected or len(os.sched_getaffinity(0)))


def test_taken_port_is_refused_with_a_remedy() -> None:
    """A port that somebody listens on gives its own exit code and the variable to change."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(LaunchError) as caught:
            check_port("127.0.0.1", port)

    assert caught.value.code is ExitCode.PORT_UNAVAILABLE
    assert str(port) in caught.value.message
    assert "NIM_SERVER_PORT" in caught.value.remedy


def test_free_port_is_accepted() -> None:
    """A port that nobody holds can be used at once, also right after it was checked."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]

    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "not an address"])
def test_foreign_address_is_a_bad_setting(host: str) -> None:
    """An address of another machine, or none at all, is blamed on NIM_SERVER_HOST."""
    with pytest.raises(LaunchError, match="NIM_SERVER_HOST") as caught:
        check_port(host, 0)

    assert caught.value.code is ExitCode.BAD_SETTINGS
