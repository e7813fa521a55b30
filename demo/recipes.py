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
    every: int = 1
    """Learnt from in every so manieth step."""
    start: float = 0.0
    """Share of the cycle's steps before the first."""
    pictures: bool = False


@dataclass(frozen=True)
class Cycle:
    """One fall of the learning rate, over a number of steps."""

    steps: int
    until: int
    """Steps that are really run: a cycle may hand over to the next before its rate has fallen."""
    diets: tuple[Diet, ...]
    matrix_rate: float
    other_rate: float
    hold: float
    """Share of the steps at full rate; then the rate falls to zero along a line."""


# Attention costs the square of a row's length, so short conversations and long ones have rows of their own.
_SHORT: Final = Diet({"chat": 0.42, "form": 0.2, "sums": 0.06, "extract": 0.06, "continue": 0.26}, 12, 192)
_TOOLS: Final = Diet({"tool": 0.45, "choice": 0.3, "pair": 0.25}, 5, 512)
_PICTURES: Final = Diet({"picture": 0.25, "two_pictures": 0.35, "which": 0.4}, 4, 640, every=2, pictures=True)
# Sums without intermediate steps are learnt last and forgotten first.
_POLISH: Final = Diet({"chat": 0.32, "form": 0.2, "sums": 0.18, "extract": 0.04, "continue": 0.26}, 12, 192)
_FIRST: Final = (_SHORT, _TOOLS, replace(_PICTURES, start=0.33))
# Which of two pictures, and which of several tools: rare decisions among many easy words, so there are more of them at last.
_LAST: Final = (
    _POLISH,
    replace(_TOOLS, shares={"tool": 0.35, "choice": 0.4, "pair": 0.25}),
    replace(_PICTURES, shares={"picture": 0.2, "two_pictures": 0.3, "which": 0.5}, rows=3, every=1),
)
RECIPES: Final = {
    "demo-moe": (
        Cycle(3200, 2200, _FIRST, 0.006, 0.003, 0.3),
        Cycle(1500, 1500, (_POLISH, _TOOLS, _PICTURES), 0.005, 0.0025, 0.3),
        Cycle(1300, 1300, _LAST, 0.005, 0.0025, 0.3),
    ),
    "demo-dense": (
        Cycle(2600, 1600, _FIRST, 0.006, 0.003, 0.3),
        Cycle(1300, 1300, (_POLISH, _TOOLS, _PICTURES), 0.004, 0.002, 0.3),
        Cycle(1300, 1300, _LAST, 0.005, 0.0025, 0.3),
    ),
}
