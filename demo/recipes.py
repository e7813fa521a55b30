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
    longest_pictures: tuple[int, ...] = (25, 25, 70, 280)
    """Soft tokens that the pictures of one conversation may have, one drawn for each: few leave room for more questions."""


@dataclass(frozen=True)
class Cycle:
    """One fall of the learning rates over a number of steps; what is hard to grasp is often grasped when they rise again."""

    steps: int
    diets: tuple[Diet, ...]
    matrix_rate: float
    other_rate: float
    hold: float
    """Share of the steps at full rates; then they fall to zero along a line."""
    averaged: bool = False
    """The weights become the mean of those at the end of this and the earlier averaged cycles: what each got wrong by chance evens out."""


# Attention costs the square of a row's length, so short conversations and long ones have rows of their own.
_SHORT: Final = Diet({"chat": 0.36, "form": 0.18, "sums": 0.12, "extract": 0.05, "continue": 0.17, "spell": 0.12}, 12, 192)
_TOOLS: Final = Diet({"tool": 0.4, "choice": 0.3, "pair": 0.3}, 4, 512)
# Which of two pictures is which is a rare decision among many easy words and is understood late, so half asks for that.
_PICTURES: Final = Diet({"picture": 0.25, "two_pictures": 0.3, "which": 0.45}, 3, 640, pictures=True)
_LARGE: Final = replace(_PICTURES, longest_pictures=(25, 70, 280, 280))
_CYCLES: Final = (
    # It starts while the vision tower is still being trained beside it.
    Cycle(3600, (_SHORT, _TOOLS, replace(_PICTURES, start=0.24)), 0.006, 0.003, 0.35),
    # By now pictures and tools are told apart; what is left is to spell, and to do two things at once.
    Cycle(
        1300,
        (
            replace(_SHORT, shares={"chat": 0.3, "form": 0.15, "sums": 0.1, "extract": 0.04, "continue": 0.19, "spell": 0.22}),
            replace(_TOOLS, shares={"tool": 0.35, "choice": 0.2, "pair": 0.45}),
            replace(_PICTURES, shares={"picture": 0.3, "two_pictures": 0.45, "which": 0.25}),
        ),
        0.005,
        0.0025,
        0.4,
    ),
    # Pictures of the size that requests have.
    Cycle(
        1000,
        (
            replace(_SHORT, shares={"chat": 0.28, "form": 0.14, "sums": 0.1, "extract": 0.03, "continue": 0.2, "spell": 0.25}),
            replace(_TOOLS, shares={"tool": 0.35, "choice": 0.1, "pair": 0.55}),
            replace(_LARGE, shares={"picture": 0.25, "two_pictures": 0.6, "which": 0.15}),
        ),
        0.005,
        0.0025,
        0.3,
    ),
    Cycle(
        400,
        (
            replace(_SHORT, rows=20, shares={"chat": 0.22, "form": 0.12, "sums": 0.1, "extract": 0.03, "continue": 0.2, "spell": 0.33}),
            replace(_TOOLS, shares={"tool": 0.4, "choice": 0.15, "pair": 0.45}),
            replace(_LARGE, shares={"picture": 0.25, "two_pictures": 0.6, "which": 0.15}),
        ),
        0.004,
        0.002,
        0.2,
        averaged=True,
    ),
    Cycle(
        500,
        (
            replace(_SHORT, rows=20, shares={"chat": 0.18, "form": 0.1, "sums": 0.08, "extract": 0.03, "continue": 0.22, "spell": 0.39}),
            replace(_TOOLS, shares={"tool": 0.4, "choice": 0.15, "pair": 0.45}),
            replace(_LARGE, shares={"picture": 0.3, "two_pictures": 0.6, "which": 0.1}),
        ),
        0.004,
        0.002,
        0.2,
        averaged=True,
    ),
    Cycle(
        500,
        (
            replace(_SHORT, rows=20, shares={"chat": 0.2, "form": 0.11, "sums": 0.09, "extract": 0.03, "continue": 0.22, "spell": 0.35}),
            replace(_TOOLS, shares={"tool": 0.45, "choice": 0.2, "pair": 0.35}),
            replace(_LARGE, shares={"picture": 0.3, "two_pictures": 0.6, "which": 0.1}),
        ),
        0.004,
        0.002,
        0.2,
        averaged=True,
    ),
)
RECIPES: Final = {"demo-moe": _CYCLES, "demo-dense": _CYCLES}
