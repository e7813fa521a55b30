"""The memory guard's decision, and telling a kill for want of memory from any other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.supervision.memory_guard import GIB, Decision, MemoryGuard, Sample, decide, guard_floor
from launcher.supervision.out_of_memory import KillCounter

FLOOR = 4 * GIB


def _samples(*gib: float) -> list[Sample]:
    return [Sample(0.5 * number, int(size * GIB)) for number, size in enumerate(gib)]


@pytest.mark.parametrize(
    ("gib", "decision"),
    [
        ((), Decision.FINE),
        ((60,), Decision.FINE),
        ((60, 30, 20), Decision.FINE),
        ((20, 3, 20), Decision.FINE),
        ((20, 3.9), Decision.STOP),
        ((7.9, 7.9), Decision.WARN),
        ((7.9, 3.9), Decision.STOP),
        ((4.0, 3.95), Decision.WARN),
        ((3.9, 3.9), Decision.STOP),
        ((3.9,), Decision.WARN),
        ((1.9,), Decision.STOP),
        ((12, 10, 8, 7.5), Decision.STOP),
        ((8.0, 7.95, 7.9), Decision.WARN),
    ],
)
def test_decision(gib: tuple[float, ...], decision: Decision) -> None:
    """One peak below the floor is borne, two samples, half of the floor or a steep fall towards it are not."""
    assert decide(_samples(*gib), FLOOR) is decision


@given(st.lists(st.floats(0, 128), min_size=1, max_size=10), st.floats(0.1, 16))
def test_guard_never_sleeps_below_half_of_the_floor_nor_stops_above_twice_of_it(sizes: list[float], gib: float) -> None:
    """Whatever the memory did before."""
    floor = int(gib * GIB)
    decision = decide(_samples(*sizes), floor)

    if int(sizes[-1] * GIB) < floor // 2:
        assert decision is Decision.STOP
    if int(sizes[-1] * GIB) >= 2 * floor and (len(sizes) < 2 or sizes[-2] * GIB >= floor):
        assert decision is Decision.FINE


@pytest.mark.parametrize(
    ("asked", "unified", "floor"),
    [
        (None, True, 119 * GIB // 32),
        (None, False, None),
        (0.0, True, None),
        (2.5, False, int(2.5 * GIB)),
    ],
)
def test_guard_is_on_where_gpu_and_cpu_share_memory(asked: float | None, floor: int | None, *, unified: bool) -> None:
    """Elsewhere the kernel can help itself; a figure of the user's own counts anywhere, and 0 turns it off."""
    assert guard_floor(asked, 119 * GIB, unified=unified) == floor


def test_guard_without_a_figure_watches_nothing() -> None:
    """Where the memory cannot be told there is nothing to compare with."""
    assert guard_floor(None, None, unified=True) is None


def test_guard_returns_when_memory_runs_out() -> None:
    """It bears samples that cannot be read, and ends with the one that decided."""
    readings: Iterable[int | None] = iter([None, 60 * GIB, GIB])
    guard = MemoryGuard(FLOOR, lambda: next(iter(readings)))

    sample = asyncio.run(asyncio.wait_for(guard.watch(), 60))

    assert sample.available == GIB


def _machine(root: Path, line: str, name: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line)
    counter = root / "sys/fs/cgroup" / name
    counter.parent.mkdir(parents=True)
    return counter


@pytest.mark.parametrize(
    ("line", "name", "text"),
    [
        ("0::/pod/engine\n", "pod/engine/memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill {}\n"),
        ("0::/host/only\n", "memory.events", "oom_kill {}\n"),
        (
            "4:memory:/docker/x\n",
            "memory/docker/x/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
    ],
)
def test_each_kill_is_told_once(tmp_path: Path, line: str, name: str, text: str) -> None:
    """By control groups of both versions; kills before the start do not count, and two kills are two."""
    counter = _machine(tmp_path, line, name)
    counter.write_text(text.format(3))
    kills = KillCounter(tmp_path)
    assert kills.take_one() is False

    counter.write_text(text.format(5))

    assert [kills.take_one() for _ in range(3)] == [True, True, False]


def test_kernel_that_does_not_count_leaves_it_open(tmp_path: Path) -> None:
    """Then nobody claims to know."""
    assert KillCounter(tmp_path).take_one() is None
