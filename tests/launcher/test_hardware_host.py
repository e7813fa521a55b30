"""Processor, memory and disk of the machine, or of the container that limits it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.hardware.cpu import read_cpu
from launcher.hardware.gpu_signs import read_signs
from launcher.hardware.host_memory import Memory, host_memory, usable_memory

GIB = 2**30
MEMINFO = f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 5 kB\nMemAvailable: {48 * GIB // 1024} kB\n"


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_a_container_the_kernel_decides(tmp_path: Path) -> None:
    """MemTotal is what there is, MemAvailable what can be had."""
    root = _write(tmp_path, {"proc/meminfo": MEMINFO})

    assert usable_memory(root) == host_memory(root) == Memory(64 * GIB, 48 * GIB)


def test_container_limit_decides_where_it_is_smaller(tmp_path: Path) -> None:
    """The limit less the use counts; file pages in the cache count as free. The machine's own figures stay known."""
    root = _write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "sys/fs/cgroup/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        },
    )

    assert usable_memory(root) == Memory(8 * GIB, 6 * GIB)
    assert host_memory(root) == Memory(64 * GIB, 48 * GIB)


def test_control_groups_of_version_1_are_understood(tmp_path: Path) -> None:
    """They have other folders and file names; a huge number means no limit."""
    folder = "sys/fs/cgroup/memory/service/worker"
    root = _write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:memory:/service/worker\n2:cpu,cpuacct:/service\n0::/init.scope\n",
            f"{folder}/memory.limit_in_bytes": "9223372036854771712",
            f"{folder}/memory.usage_in_bytes": str(GIB),
            "sys/fs/cgroup/memory/service/memory.limit_in_bytes": str(4 * GIB),
            "sys/fs/cgroup/memory/service/memory.usage_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/cpu,cpuacct/service/cpu.cfs_quota_us": "350000\n",
            "sys/fs/cgroup/cpu,cpuacct/service/cpu.cfs_period_us": "100000\n",
        },
    )

    assert usable_memory(root) == Memory(4 * GIB, 2 * GIB)
    assert read_cpu(root, affinity=16).cores == 3


def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    """A limit of a slice or service holds for all below it; where memory gets throttled is a limit, too."""
    base = "sys/fs/cgroup"
    root = _write(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/system.slice/nim.service\n",
            f"{base}/system.slice/nim.service/memory.max": "max",
            f"{base}/system.slice/nim.service/memory.high": str(12 * GIB),
            f"{base}/system.slice/nim.service/memory.current": str(GIB),
            f"{base}/system.slice/memory.max": str(10 * GIB),
            f"{base}/system.slice/memory.high": "max",
            f"{base}/system.slice/memory.current": str(9 * GIB),
            f"{base}/system.slice/cpu.max": "400000 100000",
            f"{base}/system.slice/nim.service/cpu.max": "max 100000",
        },
    )

    assert usable_memory(root) == Memory(10 * GIB, GIB)
    assert read_cpu(root, affinity=16).cores == 4


def test_a_path_of_the_host_leads_to_the_containers_own_group(tmp_path: Path) -> None:
    """Without a namespace of its own a container sees the host's path, and only its own group below /sys/fs/cgroup."""
    root = _write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../docker/4f1d\n",
            "sys/fs/cgroup/memory.max": str(2 * GIB),
            "sys/fs/cgroup/memory.current": "0",
        },
    )

    assert usable_memory(root) == Memory(2 * GIB, 2 * GIB)


def test_unlimited_container_changes_nothing(tmp_path: Path) -> None:
    """The word ``max`` is no limit."""
    files = {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n"}

    assert usable_memory(_write(tmp_path, files)) == Memory(64 * GIB, 48 * GIB)


def test_unknown_memory_is_none_not_a_guess(tmp_path: Path) -> None:
    """Where nothing can be read, detection says so and does not fail."""
    assert usable_memory(tmp_path) == Memory(None, None)


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", 6), ("800000 0", 6), ("junk", 6)]
)
def test_cpu_quota_limits_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    """A container's share of CPU counts in whole cores, at least one; what is no quota limits nothing."""
    assert read_cpu(_write(tmp_path, {"sys/fs/cgroup/cpu.max": quota}), affinity=6).cores == expected


def test_affinity_is_the_kernels(tmp_path: Path) -> None:
    """Without a limit the processors that this process may run on count."""
    assert read_cpu(tmp_path).cores == len(os.sched_getaffinity(0))


def test_features_are_those_of_every_processor(tmp_path: Path) -> None:
    """An engine's threads run on any of them."""
    cpuinfo = (
        "processor : 0\nmodel name : Two of a kind\nflags : avx avx2\n\nprocessor : 1\nmodel name : x\nflags : avx\n"
    )
    cpu = read_cpu(_write(tmp_path, {"proc/cpuinfo": cpuinfo}))

    assert cpu.features == {"avx"}
    assert cpu.model == "Two of a kind + x"


def test_an_unknown_processor_is_no_error(tmp_path: Path) -> None:
    """Arm cores without an entry go by their number, and nothing at all has no name."""
    arm = "processor : 0\nFeatures : fp asimd\nCPU implementer : 0x41\nCPU part : 0xfff\n"

    assert read_cpu(_write(tmp_path / "arm", {"proc/cpuinfo": arm})).model == "Arm 0xfff"
    assert read_cpu(tmp_path / "nothing").model == "unknown processor"
    assert read_cpu(tmp_path / "nothing").features == frozenset()


def test_only_gpus_are_signs_of_a_gpu(tmp_path: Path) -> None:
    """NVIDIA also makes switches and network cards, and others make GPUs."""
    devices = "sys/bus/pci/devices"
    root = _write(
        tmp_path,
        {
            f"{devices}/0000:01:00.0/vendor": "0x10de\n", f"{devices}/0000:01:00.0/class": "0x068000\n",
            f"{devices}/0000:02:00.0/vendor": "0x1002\n", f"{devices}/0000:02:00.0/class": "0x030000\n",
            "dev/nvidia-caps": "", "dev/nvidia-uvm": "",
        },
    )  # fmt: skip

    assert not read_signs(root).any


def test_pipes_of_an_mps_server_may_lie_elsewhere(tmp_path: Path) -> None:
    """CUDA_MPS_PIPE_DIRECTORY says where."""
    root = _write(tmp_path, {"run/mps/control": ""})

    assert read_signs(root, "/run/mps").mps
    assert not read_signs(root).mps
