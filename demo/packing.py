"""Conversations as one flat batch without padding, and which of its places attend to which.

Everything but attention works place by place, so the places of all conversations stand one after the other. Attention takes
conversations of similar length together and long ones in parts, so that little is computed that a mask then hides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ids = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
# Every new shape costs milliseconds of preparation in oneDNN, so sizes are rounded up to few different ones.
_PLACES: Final = 128
_TARGETS: Final = 64
_LENGTH: Final = 32
_PART: Final = 128


class Look(NamedTuple):
    """What has to be found before a word can be written: at ``place`` the positions from ``start`` to ``stop`` are needed."""

    place: int
    start: int
    stop: int


@dataclass(frozen=True)
class Sample:
    """One encoded conversation. ``blocks`` numbers the picture that a position belongs to, from 1; 0 is text."""

    ids: Ids
    learnt: Bools
    blocks: npt.NDArray[np.int8]
    pictures: tuple[Tensor, ...] = ()
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Part:
    """Queries from ``start`` to ``stop`` of a group's samples, which attend to keys before ``end``."""

    start: int
    stop: int
    end: int
    hidden: Tensor
    """True where a query does not see a key from ``start`` on: [samples or 1, 1, 1, stop - start, end - start]."""


@dataclass(frozen=True)
class Group:
    """Samples of one rounded length, each of which attends to itself."""

    places: Tensor
    """[samples, length]: where each position lies in the batch; behind a sample's end, one more than the last place."""
    sliding: tuple[Part, ...]
    causal: tuple[Part, ...]

    def parts(self, is_global: bool) -> tuple[Part, ...]:
        """Return those of a global or of a sliding layer, where a picture sees all of itself."""
        return self.causal if is_global else self.sliding


@dataclass(frozen=True)
class Layout:
    """All groups of a batch; every place is in exactly one of them."""

    groups: tuple[Group, ...]
    order: Tensor
    """[places]: where each place lies when the positions of all groups stand one after the other."""


@dataclass(frozen=True)
class Batch:
    """Several kinds of conversations as one flat batch: [places] are ``ids`` and their ``positions`` in their samples.

    The first ``len(wanted)`` of ``rows`` are the places whose next id is learnt, and ``wanted`` is that id; the others
    round their number up. ``counts`` says how many of them each kind has. Padding is a sample too, as short as can be.
    """

    ids: Tensor
    positions: Tensor
    shares: Tensor
    """[kinds, places]: what part of its kind a place is; the padding is part of none."""
    layout: Layout
    rows: Tensor
    wanted: Tensor
    counts: tuple[int, ...]
    soft_places: Tensor
    soft_features: Tensor | None
    looks: Tensor
    """[looks, 4]: where the sample of each begins, its place, and from where to where it is to look."""

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        moved: Batch = self if device.type == "cpu" else _moved(self, device)
        return moved


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def pack(kinds: Sequence[Sequence[Sample]]) -> Batch:
    """Lay the samples of all kinds one after the other; none sees another."""
    samples = [sample for kind in kinds for sample in kind]
    sizes = [sum(len(sample.ids) for sample in kind) for kind in kinds]
    real = sum(sizes)
    padding = _up(real + 1, _PLACES) - real
    samples.append(Sample(np.zeros(padding, np.int32), np.zeros(padding, bool), np.zeros(padding, np.int8)))
    ids = np.concatenate([sample.ids for sample in samples]).astype(np.int64)
    positions = np.concatenate([np.arange(len(sample.ids)) for sample in samples])
    blocks = np.concatenate([sample.blocks for sample in samples])
    targets = np.flatnonzero(np.concatenate([sample.learnt for sample in samples])[1:])
    features = [picture for sample in samples for picture in sample.pictures]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        _shares(sizes, padding),
        _layout(samples),
        torch.from_numpy(np.resize(targets, _up(len(targets), _TARGETS))),
        torch.from_numpy(ids[targets + 1]),
        tuple(int(sum(sample.learnt.sum() for sample in kind)) for kind in kinds),
        torch.from_numpy(np.flatnonzero(blocks)),
        torch.cat(features) if features else None,
        _looks(samples),
    )


def _looks(samples: Sequence[Sample]) -> Tensor:
    starts = np.cumsum([0, *(len(sample.ids) for sample in samples)])
    found = [(start, *(int(start) + part for part in look)) for start, sample in zip(starts, samples, strict=False) for look in sample.looks]
    return torch.tensor(found, dtype=torch.int64).view(-1, 4)


def _shares(sizes: Sequence[int], padding: int) -> Tensor:
    return torch.block_diag(*(torch.full((size,), 1 / size) for size in sizes), torch.zeros(padding))[: len(sizes)]


def _layout(samples: list[Sample]) -> Layout:
    """Group samples by their rounded length."""
    sizes = [len(sample.ids) for sample in samples]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    members: dict[int, list[int]] = {}
    for number, size in enumerate(sizes):
        members.setdefault(_up(size, _LENGTH), []).append(number)
    order = np.empty(starts[-1], np.int64)
    groups = []
    before = 0
    for length, numbers in _few_sizes(members):
        places = np.full((len(numbers), length), starts[-1], np.int64)
        blocks = np.zeros((len(numbers), length), np.int8)
        for row, number in enumerate(numbers):
            start, size = starts[number], sizes[number]
            places[row, :size] = np.arange(start, start + size)
            blocks[row, :size] = samples[number].blocks
            order[start : start + size] = before + row * length + np.arange(size)
        before += places.size
        causal = _parts(np.zeros((1, length), np.int8))
        groups.append(Group(torch.from_numpy(places), _parts(blocks) if blocks.any() else causal, causal))
    return Layout(tuple(groups), torch.from_numpy(order))


def _few_sizes(members: dict[int, list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Cut groups so that each has a power of two of samples."""
    for length, numbers in sorted(members.items()):
        left = numbers
        while left:
            count = 1 << (len(left).bit_length() - 1)
            yield length, left[:count]
            left = left[count:]


def _parts(blocks: npt.NDArray[np.int8]) -> tuple[Part, ...]:
    """Cut the queries of a group into parts; each sees what came before it and all of the picture that it is in."""
    length = blocks.shape[1]
    size = _PART if length > _PART * 3 // 2 else length
    parts = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        places = np.arange(start, length)
        seen = (places[: stop - start, None] >= places)[None]
        block, later = blocks[:, start:stop, None], blocks[:, None, start:]
        seen = seen | ((block == later) & (block > 0))
        end = min(length, start + _up(int(np.flatnonzero(seen.any((0, 1)))[-1]) + 1, _LENGTH))
        parts.append(Part(start, stop, end, torch.from_numpy(~seen[:, None, None, :, : end - start])))
    return tuple(parts)
