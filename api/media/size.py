"""Gemma 4's picture sizes: which height and width a picture takes at a token budget, and which budget a caller means.

Pure arithmetic; decoding and resizing are ``api.media.decode``'s. Facts: the model family's image processor keeps the
ratio and scales up or down until the budget of 48 x 48 pixel tokens is filled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TOKEN_SIDE = 48
"""Pixels of one soft token's side: patches of 16 pixels, pooled 3 by 3."""

BUDGETS = (70, 140, 280, 560, 1120)
"""Token budgets that the model was trained with."""

DETAIL_BUDGETS = {"low": 70, "high": 1120}
"""Budgets of ``detail`` values that do not depend on the picture or the server."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens a picture may take. ``lossless`` picks the smallest budget that does not shrink it."""

    tokens: int
    lossless: bool = False


class UnsizableError(Exception):
    """The picture is too small or too extreme in shape for any size."""


def fit(width: int, height: int, budget: int) -> tuple[int, int]:
    """Return the width and height that a picture is resized to; both are multiples of 48.

    Raises:
        UnsizableError: when both sides would vanish.
    """
    factor = math.sqrt(budget * TOKEN_SIDE * TOKEN_SIDE / (width * height))
    new_width = math.floor(factor * width / TOKEN_SIDE) * TOKEN_SIDE
    new_height = math.floor(factor * height / TOKEN_SIDE) * TOKEN_SIDE
    longest = budget * TOKEN_SIDE
    if not new_width and not new_height:
        raise UnsizableError(width, height)
    if not new_height:
        return min(math.floor(width / height) * TOKEN_SIDE, longest), TOKEN_SIDE
    if not new_width:
        return TOKEN_SIDE, min(math.floor(height / width) * TOKEN_SIDE, longest)
    return new_width, new_height


def smallest_lossless_budget(width: int, height: int) -> int:
    """Return the smallest budget at which neither side shrinks; the largest one if all shrink it."""
    for budget in BUDGETS:
        new_width, new_height = fit(width, height, budget)
        if new_width >= width and new_height >= height:
            return budget
    return BUDGETS[-1]
