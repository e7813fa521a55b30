"""Which slot a new prompt goes to, and how many of its first tokens need not be computed again.

Pure planning: it knows keys, salts and positions, not llama.cpp. A key is a token id, or for every place of an image a
negative number made from the picture's digest, so equal keys mean equal memory contents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from engine.images import ImageRun

WORTHWHILE_TOKENS = 32
"""A shorter common prefix does not justify overwriting another conversation's memory while an empty slot is left."""
COPY_TOKENS = 128
"""What copying another slot's whole memory, or waiting for it, must save at least."""

EMPTY_KEYS: NDArray[np.int64] = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A copy of the sliding layers' memory of positions ``first`` to ``end - 1``, taken before it was overwritten."""

    first: int
    end: int
    data: NDArray[np.uint8]


@dataclass(slots=True)
class Slot:
    """One sequence id of the context and what its memory holds.

    ``keys`` is right while nobody uses the slot; ``checkpoint`` agrees with them up to its end.
    """

    index: int
    keys: NDArray[np.int64] = field(default_factory=lambda: EMPTY_KEYS)
    salt: str = ""
    last_used: int = 0
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Resident:
    """A running sequence as a source of memory: its slot, what is computed so far, and its whole prompt."""

    slot: Slot
    keys: NDArray[np.int64]
    prompt: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a prompt goes: the slot, the leading tokens to keep, and where their memory comes from.

    ``donor`` is a slot whose memory is copied first; ``restore`` says that the slot's checkpoint is needed.
    """

    slot: Slot
    reused: int
    restore: bool = False
    donor: Slot | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What decides about reuse: keys of all places, the image runs among them, and the caller's salt."""

    keys: NDArray[np.int64]
    runs: tuple[ImageRun, ...]
    salt: str


def prompt_keys(token_ids: Sequence[int], runs: Iterable[ImageRun], digests: Iterable[bytes]) -> NDArray[np.int64]:
    """Return one key per place of a prompt."""
    keys = np.array(token_ids, dtype=np.int64)
    for run, digest in zip(runs, digests, strict=True):
        keys[run.start : run.start + run.count] = -1 - (int.from_bytes(digest[:8], "little") >> 1)
    return keys


def common_prefix(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """Return how many leading entries are equal."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans with the model's sliding window and a way to ask where a slot's sliding memory begins."""

    window: int
    first_position: Callable[[int], int]

    def keep(self, slot: Slot, keys: NDArray[np.int64], prompt: Prompt) -> Placement:
        """Return what a slot with these keys can keep for a prompt.

        At least one token is left to compute, because its logits are needed. An image is kept whole or not at all: its
        places see each other in both directions. And going on at position p needs the sliding layers' memory from
        p - window + 1 on; when that is gone, a checkpoint may still have it.
        """
        if slot.salt != prompt.salt:
            return Placement(slot, 0)
        reuse = min(common_prefix(keys, prompt.keys), len(prompt.keys) - 1)
        for run in prompt.runs:
            if run.start < reuse < run.start + run.count:
                reuse = run.start
        if reuse <= 0:
            return Placement(slot, 0)
        needed = max(0, reuse - self.window + 1)
        if self.first_position(slot.index) <= needed:
            return Placement(slot, reuse)
        checkpoint = slot.checkpoint
        if checkpoint is not None:
            reuse = min(reuse, checkpoint.end)
            if checkpoint.first <= max(0, reuse - self.window + 1):
                return Placement(slot, reuse, restore=True)
        return Placement(slot, 0)

    def place(self, free: Sequence[Slot], residents: Iterable[Resident], prompt: Prompt) -> Placement | None:
        """Choose among free slots (at least one) the one that saves the most work, or None to wait a little.

        Waiting pays when a running sequence is just computing a long prefix that this prompt shares. Copying pays when
        a running sequence has one, or when a free slot has one but would lose much more of its own.
        """
        best = min((self.keep(slot, slot.keys, prompt) for slot in free), key=_rank)
        spare = min((Placement(slot, 0) for slot in free), key=_rank)
        promised = 0
        donor = Placement(spare.slot, 0)
        for resident in residents:
            if resident.slot.salt != prompt.salt:
                continue
            if len(resident.keys) < len(resident.prompt):
                promised = max(promised, common_prefix(resident.prompt, prompt.keys))
            offer = self.keep(resident.slot, resident.keys, prompt)
            if offer.reused > donor.reused and not offer.restore:
                donor = offer
        # A copy taken now, with most of the prefix done, would have the rest of it computed twice, and side by side.
        if promised >= best.reused + COPY_TOKENS and promised > donor.reused:
            return None
        if donor.reused >= best.reused + COPY_TOKENS:
            return Placement(spare.slot, donor.reused, donor=donor.slot)
        loses_much = len(best.slot.keys) >= best.reused + COPY_TOKENS
        if best.reused >= COPY_TOKENS and loses_much and not best.restore and not len(spare.slot.keys):
            return Placement(spare.slot, best.reused, donor=best.slot)
        return best


def _rank(placement: Placement) -> tuple[int, bool, int, int]:
    """Order placements, best first.

    Where nothing worthwhile is saved, an empty slot is taken before the least recently used one, and the lowest index
    first: llama.cpp computes neighbouring sequences together.
    """
    slot = placement.slot
    saved = placement.reused if placement.reused >= WORTHWHILE_TOKENS else 0
    return (-saved, len(slot.keys) > 0, slot.last_used, slot.index)
