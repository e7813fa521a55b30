"""What each demo checkpoint learns from, in which shares, for how many steps and at which rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Diet:
    """One kind of batches: shares of the skills, and the rows that they are packed into."""

    shares: Mapping[str, float]
    rows: int
    length: int
    start: float = 0.0
    """Share of the steps before the first."""
    pictures: bool = False


@dataclass(frozen=True)
class Recipe:
    """The text stage of one checkpoint."""

    steps: int
    diets: tuple[Diet, ...]
    matrix_rate: float
    other_rate: float
    hold: float
    """Share of the steps at full rate; then the rate falls to zero along a line."""


# Attention costs the square of a row's length, so short conversations and long ones have rows of their own.
_SHORT: Final = Diet({"chat": 0.36, "form": 0.18, "sums": 0.12, "extract": 0.05, "continue": 0.17, "spell": 0.12}, 12, 192)
_TOOLS: Final = Diet({"tool": 0.4, "choice": 0.3, "pair": 0.3}, 4, 512)
# Which of two pictures is which is a rare decision among many easy words and is understood late, so half asks for that.
_PICTURES: Final = Diet({"picture": 0.25, "two_pictures": 0.3, "which": 0.45}, 3, 640, pictures=True)
# The mixture starts while the vision tower is still being trained beside it.
RECIPES: Final = {
    "demo-moe": Recipe(3600, (_SHORT, _TOOLS, replace(_PICTURES, start=0.24)), 0.006, 0.003, 0.35),
    "demo-dense": Recipe(3000, (_SHORT, _TOOLS, replace(_PICTURES, start=0.1)), 0.006, 0.003, 0.35),
}
