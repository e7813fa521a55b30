"""Writing a grammar's bit mask over a row of logits, in place.

Masks are eight ids to a byte. Along an answer nearly every mask allows a handful of ids (structure) or nearly all of
them (free text), and only the bytes that differ from the rest need work; the others are written through a table of what
each byte adds to its eight logits. Comparing and choosing by single ids costs many times as much, because the processor
cannot guess the choices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IDS = 8
"""Ids to a byte of a mask."""
_ALL = 0xFF
_FEW = 1 / 16
"""Share of a mask's bytes up to which they are looked up one by one."""
_SAMPLE = 4096

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(np.bool_)
_ADDED = np.where(_BITS, np.float32(0), np.float32(-np.inf))
"""What a byte of a mask adds to its eight logits [256, 8]."""


class MaskWriter:
    """Writes masks of one vocabulary. For one thread: it keeps room for what a mask adds."""

    def __init__(self, vocab_size: int) -> None:
        self._whole = vocab_size // _IDS
        self._few = int(self._whole * _FEW)
        self._added = np.empty((self._whole, _IDS), dtype=np.float32)

    def write(self, row: NDArray[np.float32], mask: NDArray[np.uint8]) -> bool:
        """Set all logits to minus infinity whose bit is not set; return whether a finite one is left.

        Args:
            row: logits [vocab_size], contiguous, none of them plus infinity.
            mask: bits, lowest first, at least as many as the vocabulary has ids.
        """
        rest = row[self._whole * _IDS :]
        if len(rest):
            rest += _ADDED[mask[self._whole], : len(rest)]
        left = bool(len(rest)) and bool(np.isfinite(rest.max()))
        return self._write(row[: self._whole * _IDS], mask[: self._whole]) or left

    def _write(self, row: NDArray[np.float32], mask: NDArray[np.uint8]) -> bool:
        """Do the same for whole bytes."""
        rows = row.reshape(-1, _IDS)
        if np.count_nonzero(mask) <= self._few:
            allowed = np.flatnonzero(mask != 0)
            kept = rows[allowed]
            kept += _ADDED[mask[allowed]]
            row.fill(-np.inf)
            rows[allowed] = kept
            return len(allowed) > 0 and bool(np.isfinite(kept.max()))
        is_partial = mask != _ALL
        count = np.count_nonzero(is_partial)
        if count > self._few:
            rows += np.take(_ADDED, mask, axis=0, out=self._added, mode="clip")
        elif count:
            partial = np.flatnonzero(is_partial)
            rows[partial] += _ADDED[mask[partial]]
        # Nearly always one of the first is finite; then the others need no look.
        return bool(np.isfinite(row[:_SAMPLE].max()) or np.isfinite(row.max()))
