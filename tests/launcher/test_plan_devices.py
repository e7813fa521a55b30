"""Which GPUs are taken together, and how much of their memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launcher.hardware.system import Gpu, Problem, System
from launcher.plan.devices import budget_of, device_sets, kinds, usable_gpus
from launcher.plan.estimate import imagined_system
from launcher.plan.wishes import Wishes

GIB = 2**30


def _linked(system: System, *groups: tuple[int, ...]) -> System:
    """Return the system with these groups of GPUs linked among themselves, and no other links."""
    peers = {index: frozenset(group) - {index} for group in groups for index in group}
    return replace(
        system, gpus=tuple(replace(gpu, nvlink_peers=peers.get(gpu.index, frozenset())) for gpu in system.gpus)
    )


def _free(system: System, *gib: float) -> System:
    return replace(
        system,
        gpus=tuple(replace(gpu, memory_free=int(free * GIB)) for gpu, free in zip(system.gpus, gib, strict=True)),
    )


def _indices(system: System, count: int) -> list[tuple[list[int], bool]]:
    return [([gpu.index for gpu in one.gpus], one.linked) for one in device_sets(system, count, Wishes())]


def test_pairs_behind_bridges_stay_together() -> None:
    """Of two linked pairs each is offered, and so are the roomiest two whatever their links."""
    system = _free(_linked(imagined_system("4xRTX 3090"), (0, 1), (2, 3)), 10, 20, 15, 22)

    assert _indices(system, 2) == [([0, 1], True), ([2, 3], True), ([1, 3], False)]
    assert _indices(system, 4) == [([0, 1, 2, 3], False)]
    assert _indices(system, 1) == [([3], True)]


def test_linked_gpus_stand_side_by_side_and_first() -> None:
    """An engine numbers its workers in the plan's order: pairs together, before GPUs without a link."""
    system = imagined_system("4xRTX 3090")

    assert _indices(_linked(system, (0, 2), (1, 3)), 4) == [([0, 2, 1, 3], False)]
    assert _indices(_linked(system, (1, 3)), 4) == [([1, 3, 0, 2], False)]


def test_behind_a_switch_the_roomiest_are_taken() -> None:
    """Where all are linked, free memory decides, and the order is that of the system."""
    system = _free(imagined_system("8xH100"), 10, 70, 20, 60, 30, 50, 40, 75)

    assert _indices(system, 2) == [([1, 7], True)]
    assert _indices(system, 4) == [([1, 3, 5, 7], True)]


def test_partial_meshes_are_not_taken_for_linked() -> None:
    """In a chain neighbours are linked, its ends are not, and all of it together is not."""
    system = imagined_system("3xA100")
    chain = {0: frozenset({1}), 1: frozenset({0, 2}), 2: frozenset({1})}
    system = replace(system, gpus=tuple(replace(gpu, nvlink_peers=chain[gpu.index]) for gpu in system.gpus))

    assert _indices(_free(system, 30, 20, 30), 2) == [([0, 1], True), ([1, 2], True), ([0, 2], False)]
    assert _indices(system, 3) == [([0, 1, 2], False)]


def test_kinds_are_kept_apart() -> None:
    """Another name, a slice, or a problem makes another kind, or none."""
    system = imagined_system("2xL40S,1xL4")
    first, second, third = system.gpus
    half = replace(first, mig_profile="half")
    lost = replace(second, problem=Problem("gpu-lost", "lost", "restart"))
    mixed = replace(system, gpus=(half, first, lost, third))

    assert [[gpu.name for gpu in kind] for kind in kinds(mixed)] == [["NVIDIA L40S"], ["NVIDIA L40S"], ["NVIDIA L4"]]
    assert lost not in usable_gpus(mixed)
    assert device_sets(mixed, 2, Wishes()) == ()


@pytest.mark.parametrize(
    ("name", "wishes", "kept_gib"),
    [
        ("H100", Wishes(), 2),
        ("RTX 4090", Wishes(), 24564 / 1024 / 24),
        ("RTX 4090", Wishes(headroom=3 * GIB), 3),
        ("H100", Wishes(headroom=0), 0),
        ("DGX Spark", Wishes(), 16),
        ("DGX Spark", Wishes(host_reserve=GIB), 2),
    ],
)
def test_headroom_follows_size_and_settings(name: str, wishes: Wishes, kept_gib: float) -> None:
    """2 GiB, less on small GPUs unless it was set; a reserve for the system on shared memory."""
    (gpu,) = imagined_system(name).gpus

    assert gpu.memory_free - budget_of(gpu, wishes) == pytest.approx(kept_gib * GIB, abs=2)


def test_budget_never_exceeds_free_memory_or_the_share() -> None:
    """A full GPU has nothing to give, and a share of the whole is a limit of its own."""
    (gpu,) = imagined_system("H100").gpus

    assert budget_of(replace(gpu, memory_free=GIB), Wishes()) == 0
    assert budget_of(gpu, Wishes(utilization=0.25)) == gpu.memory_total // 4
    assert isinstance(gpu, Gpu)
