"""The context's slots: who has which, what they keep for the next prompt, and checkpoints of what would be lost.

It carries out what ``prefix_cache`` plans. Used by the step thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.llama_cpp.prefix_cache import EMPTY_KEYS, Checkpoint, Planner, Resident, Slot

if TYPE_CHECKING:
    from collections.abc import Sequence as Sequences

    from engine.llama_cpp.context import Context
    from engine.llama_cpp.sequence import Sequence

CHECKPOINT_BYTES = 2**30
"""Memory that all checkpoints together may take. One of the 26B-A4B takes 200 MiB."""
CHECKPOINT_DISTANCE = 16
"""How far before the end of a prompt its checkpoint lies: the next turn of a conversation may spell the prompt's last
few ids in another way (the header of a model turn, an empty thought)."""


def resident_of(sequence: Sequence) -> Resident:
    """Return a running sequence as a source of memory for others."""
    return Resident(sequence.held_slot, sequence.computed_keys(), sequence.prompt.keys)


class SlotPool:
    """Gives slots to sequences and takes them back."""

    def __init__(self, context: Context, max_sequences: int, window: int) -> None:
        self._context = context
        self._free = [Slot(index) for index in range(max_sequences)]
        self._slots = tuple(self._free)
        self._planner = Planner(window, context.first_position)
        self._clock = 0
        # A sequence's sliding memory is a ring. The window before a place is overwritten after this many more places;
        # when the ring holds the whole context, never.
        ring = context.sliding_tokens
        self._lost_after = ring - window if ring < context.context_tokens else None

    @property
    def has_free(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def place(self, sequence: Sequence, residents: Sequences[Resident]) -> bool:
        """Give a slot to a sequence and keep what is already computed; False when it had better wait."""
        placement = self._planner.place(self._free, residents, sequence.prompt)
        if placement is None:
            return False
        slot = placement.slot
        if placement.donor is not None:
            self._context.copy(placement.donor.index, slot.index)
            slot.checkpoint = None
        elif placement.restore and slot.checkpoint is not None:
            self._context.restore(slot.index, slot.checkpoint.data)
        self._context.truncate(slot.index, placement.reused)
        checkpoint = slot.checkpoint
        if checkpoint is not None:
            end = min(checkpoint.end, placement.reused)
            slot.checkpoint = Checkpoint(checkpoint.first, end, checkpoint.data) if end > checkpoint.first else None
        slot.salt = sequence.prompt.salt
        self._free.remove(slot)
        sequence.slot = slot
        sequence.position = sequence.cached = placement.reused
        sequence.checkpoint_at = self._checkpoint_place(sequence)
        return True

    def release(self, sequence: Sequence) -> None:
        """Take a slot back; what it holds stays for prefix reuse."""
        slot = sequence.held_slot
        slot.keys = sequence.computed_keys()
        self._clock += 1
        slot.last_used = self._clock
        sequence.slot = None
        self._free.append(slot)

    def clear(self, slot: Slot) -> None:
        """Forget what a slot holds, after a failed decode."""
        self._context.truncate(slot.index, 0)
        slot.keys = EMPTY_KEYS
        slot.checkpoint = None

    def _checkpoint_place(self, sequence: Sequence) -> int | None:
        """Return the place for a checkpoint: near the prompt's end, if it may be overwritten."""
        place = sequence.prompt_length - CHECKPOINT_DISTANCE
        for run in sequence.prompt.runs:
            if run.start < place < run.start + run.count:
                place = run.start
        longest = sequence.request.max_tokens + CHECKPOINT_DISTANCE
        if self._lost_after is None or longest < self._lost_after or place <= sequence.position:
            return None
        return place

    def save(self, sequence: Sequence) -> None:
        """Take a checkpoint when the sequence stands at its place for one.

        llama.cpp saves only what the next place can see, so it must be taken right there: a long completion overwrites
        the window, and the next turn often goes back behind it, because thoughts are dropped from the history.
        """
        if sequence.position != sequence.checkpoint_at:
            return
        slot = sequence.held_slot
        first = max(self._context.first_position(slot.index), sequence.position - self._planner.window)
        size = self._context.snapshot_bytes(slot.index)
        slot.checkpoint = None
        if size <= CHECKPOINT_BYTES:
            self._make_room(size)
            slot.checkpoint = Checkpoint(first, sequence.position, self._context.snapshot(slot.index, size))

    def _make_room(self, size: int) -> None:
        holders = sorted((slot for slot in self._slots if slot.checkpoint), key=lambda slot: slot.last_used)
        total = size + sum(slot.checkpoint.data.nbytes for slot in holders if slot.checkpoint)
        for slot in holders:
            if total <= CHECKPOINT_BYTES:
                return
            if slot.checkpoint is not None:
                total -= slot.checkpoint.data.nbytes
                slot.checkpoint = None
