"""Which GPUs an engine may take together, and how much of their memory.

GPUs of one engine must be of one kind. MIG slices cannot talk to each other, so each of them stands alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from launcher.hardware.system import Gpu, System
from launcher.plan.wishes import SMALL_GPU_HEADROOM_SHARE, USUAL_HEADROOM, Wishes


@dataclass(frozen=True, slots=True)
class Devices:
    """GPUs that one engine takes.

    Attributes:
        linked: all of them reach each other by NVLink; true for a single one.
        budget: bytes that the engine may take on each.
        free: bytes that are free on the fullest of them.
    """

    gpus: tuple[Gpu, ...]
    linked: bool
    budget: int
    free: int

    @property
    def capability(self) -> tuple[int, int]:
        """Return the compute capability that they share."""
        return self.gpus[0].compute_capability


def budget_of(gpu: Gpu, wishes: Wishes) -> int:
    """Return how many bytes of this GPU the engine may take: free memory less what stays for others."""
    headroom = wishes.headroom
    if headroom is None:
        headroom = min(USUAL_HEADROOM, gpu.memory_total // SMALL_GPU_HEADROOM_SHARE)
    kept = max(wishes.host_reserve, headroom) if gpu.unified_memory else headroom
    budget = gpu.memory_free - kept
    if wishes.utilization is not None:
        budget = min(budget, int(gpu.memory_total * wishes.utilization))
    return max(budget, 0)


def usable_gpus(system: System) -> tuple[Gpu, ...]:
    """Return the GPUs without a problem."""
    return tuple(gpu for gpu in system.gpus if gpu.problem is None)


def kinds(system: System) -> tuple[tuple[Gpu, ...], ...]:
    """Return the usable GPUs by kind, in the order in which the first of each kind appears."""
    groups: dict[tuple[object, ...], list[Gpu]] = defaultdict(list)
    for gpu in usable_gpus(system):
        groups[gpu.name, gpu.compute_capability, gpu.mig_profile, gpu.unified_memory].append(gpu)
    return tuple(tuple(group) for group in groups.values())


def device_sets(system: System, count: int, wishes: Wishes) -> tuple[Devices, ...]:
    """Return the sets of ``count`` GPUs worth considering: of each kind those with most memory, linked and any."""
    found: dict[tuple[int, ...], Devices] = {}
    for group in kinds(system):
        if count > 1 and group[0].mig_profile is not None:
            continue
        for gpus in _selections(group, count, wishes):
            key = tuple(system.gpus.index(gpu) for gpu in gpus)
            found.setdefault(key, _devices(system, gpus, wishes))
    return tuple(found.values())


def _selections(group: tuple[Gpu, ...], count: int, wishes: Wishes) -> Iterator[list[Gpu]]:
    if count > 1:
        for clique in _cliques(group):
            if len(clique) >= count:
                yield _roomiest(clique, count, wishes)
    if len(group) >= count:
        yield _roomiest(group, count, wishes)


def _roomiest(gpus: Iterable[Gpu], count: int, wishes: Wishes) -> list[Gpu]:
    # The index settles ties, so that the same machine always gets the same plan.
    return sorted(gpus, key=lambda gpu: (-budget_of(gpu, wishes), gpu.index, gpu.uuid))[:count]


def _cliques(group: tuple[Gpu, ...]) -> Iterator[list[Gpu]]:
    """Yield the sets of GPUs that all reach each other: pairs behind a bridge, or all behind a switch."""
    indices = {gpu.index for gpu in group}
    seen: set[frozenset[int]] = set()
    for gpu in group:
        members = frozenset(gpu.nvlink_peers & indices) | {gpu.index}
        complete = all(members <= other.nvlink_peers | {other.index} for other in group if other.index in members)
        if complete and len(members) > 1 and members not in seen:
            seen.add(members)
            yield [other for other in group if other.index in members]


def _rank(gpu: Gpu, gpus: list[Gpu], system: System) -> tuple[bool, int, int]:
    """Return what puts GPUs that are linked among each other side by side and first, and else keeps the system's order.

    Engines number their workers in this order, so that neighbours in it are neighbours on the board.
    """
    linked = [other for other in gpus if other.index in gpu.nvlink_peers]
    place = system.gpus.index(gpu)
    return not linked, min([place, *map(system.gpus.index, linked)]), place


def _devices(system: System, gpus: list[Gpu], wishes: Wishes) -> Devices:
    ordered = tuple(sorted(gpus, key=lambda gpu: _rank(gpu, gpus, system)))
    linked = all(other.index in gpu.nvlink_peers for gpu in ordered for other in ordered if other.index != gpu.index)
    return Devices(
        gpus=ordered,
        linked=linked,
        budget=min(budget_of(gpu, wishes) for gpu in ordered),
        free=min(gpu.memory_free for gpu in ordered),
    )
