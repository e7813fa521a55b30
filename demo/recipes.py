"""What each demo checkpoint learns from, in which shares, for how many steps and at which rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Diet:
    """One kind of conversations: shares of the skills, and how much of it a step has."""

    shares: Mapping[str, float]
    places: int
    """Positions in a step."""
    longest: int
    """Positions in a conversation; longer ones lose their last turns."""
    pictures: bool = False
    picture_sizes: tuple[tuple[int, int], ...] = ((1, 25), (1, 25), (1, 70), (1, 280))
    """How few and how many soft tokens a picture has; one pair is drawn for each conversation. Few leave room for more questions."""


@dataclass(frozen=True)
class Cycle:
    """One fall of the learning rates over a number of steps; what is hard to grasp is often grasped when they rise again."""

    steps: int
    diets: tuple[Diet, ...]
    matrix_rate: float
    other_rate: float
    hold: float
    """Share of the steps at full rates; then they fall to zero along a line."""
    words_only: bool = False
    """No pictures yet: one process trains the text model while another one trains the vision tower."""
    seed: int | None = None
    """What its conversations are drawn from, beside the seed of the run; ten times the cycle's number if None."""
    averaged: bool = False
    """The weights become the mean of those at the end of this and the earlier averaged cycles: what each got wrong by chance evens out."""


# Each kind counts the same in a step, so what is decided by few tokens of long conversations is not drowned by short ones.
_SHORT: Final = Diet({"chat": 0.36, "form": 0.18, "sums": 0.12, "extract": 0.05, "continue": 0.17, "spell": 0.12}, 2048, 192)
_TOOLS: Final = Diet({"tool": 0.4, "choice": 0.3, "pair": 0.3}, 1792, 512)
# Which of two pictures is which is a rare decision among many easy words and is understood late, so half asks for that.
_PICTURES: Final = Diet({"picture": 0.25, "two_pictures": 0.3, "which": 0.45}, 1664, 640, pictures=True)
_LARGE: Final = replace(_PICTURES, picture_sizes=((1, 25), (1, 70), (140, 280), (140, 280)), places=1920)
_LAST: Final = (
    (
        replace(_SHORT, places=2560, shares={"chat": 0.18, "form": 0.1, "sums": 0.08, "extract": 0.03, "continue": 0.22, "spell": 0.39}),
        replace(_TOOLS, places=2048, shares={"tool": 0.4, "choice": 0.25, "pair": 0.35}),
        replace(_LARGE, shares={"picture": 0.3, "two_pictures": 0.6, "which": 0.1}),
    ),
    (
        replace(_SHORT, places=2560, shares={"chat": 0.2, "form": 0.11, "sums": 0.09, "extract": 0.03, "continue": 0.22, "spell": 0.35}),
        replace(_TOOLS, places=2048, shares={"tool": 0.45, "choice": 0.25, "pair": 0.3}),
        replace(_LARGE, shares={"picture": 0.3, "two_pictures": 0.6, "which": 0.1}),
    ),
    (
        replace(_SHORT, places=2560, shares={"chat": 0.14, "form": 0.09, "sums": 0.07, "extract": 0.03, "continue": 0.25, "spell": 0.42}),
        replace(_TOOLS, places=2048, shares={"tool": 0.35, "choice": 0.2, "pair": 0.45}),
        replace(_LARGE, shares={"picture": 0.25, "two_pictures": 0.65, "which": 0.1}),
    ),
    # To go on inside a word is learnt last of all.
    (
        replace(_SHORT, places=3072, shares={"chat": 0.08, "form": 0.06, "sums": 0.05, "extract": 0.02, "continue": 0.19, "spell": 0.6}),
        replace(_TOOLS, places=1280, shares={"tool": 0.4, "choice": 0.2, "pair": 0.4}),
        replace(_LARGE, places=1408, shares={"picture": 0.25, "two_pictures": 0.65, "which": 0.1}),
    ),
)
# Pictures of the size that requests have.
_LIKE_REQUESTS: Final = (
    replace(_SHORT, places=1792, shares={"chat": 0.28, "form": 0.14, "sums": 0.1, "extract": 0.03, "continue": 0.2, "spell": 0.25}),
    # Names of tools that are made up for a request have to be copied piece by piece, which is understood last.
    replace(_TOOLS, places=2048, shares={"tool": 0.4, "choice": 0.2, "pair": 0.35, "tool_names": 0.05}),
    replace(_LARGE, places=1792, shares={"picture": 0.25, "two_pictures": 0.6, "which": 0.15}),
)
_MIXTURE: Final = (
    Cycle(900, (_SHORT, _TOOLS), 0.006, 0.003, 0.9, words_only=True),
    Cycle(2250, (_SHORT, _TOOLS, _PICTURES), 0.006, 0.003, 0.3),
    # By now pictures and tools are told apart; what is left is to spell, and to do two things at once.
    Cycle(
        1000,
        (
            replace(_SHORT, shares={"chat": 0.3, "form": 0.15, "sums": 0.1, "extract": 0.04, "continue": 0.19, "spell": 0.22}),
            replace(_TOOLS, shares={"tool": 0.35, "choice": 0.2, "pair": 0.45}),
            replace(_PICTURES, shares={"picture": 0.3, "two_pictures": 0.45, "which": 0.25}),
        ),
        0.005,
        0.0025,
        0.4,
    ),
    # To find a name by what it is about is understood suddenly and when there is hardly anything else to learn, but not with every
    # seed: with these it was, with three other pairs it was not. Words side by side are the way in. The next cycle brings back what that displaces.
    Cycle(270, (replace(_TOOLS, places=2048, shares={"list": 0.8, "choice": 0.2}),), 0.005, 0.0025, 0.98, seed=0),
    Cycle(500, (replace(_TOOLS, places=2048, shares={"any_list": 0.5, "tool_names": 0.25, "choice": 0.25}),), 0.005, 0.0025, 0.8, seed=10),
    Cycle(
        650,
        (
            replace(_SHORT, shares={"chat": 0.27, "form": 0.15, "sums": 0.1, "extract": 0.04, "continue": 0.19, "spell": 0.25}),
            replace(_TOOLS, shares={"tool": 0.35, "choice": 0.2, "pair": 0.35, "tool_names": 0.1}),
            replace(_PICTURES, places=1536, shares={"picture": 0.3, "two_pictures": 0.45, "which": 0.25}),
        ),
        0.005,
        0.0025,
        0.4,
    ),
    Cycle(500, _LIKE_REQUESTS, 0.005, 0.0025, 0.3),
    Cycle(250, _LAST[0], 0.004, 0.002, 0.2, averaged=True),
    Cycle(250, _LAST[1], 0.004, 0.002, 0.2, averaged=True),
    Cycle(250, _LAST[2], 0.004, 0.002, 0.2, averaged=True),
    Cycle(250, _LAST[3], 0.004, 0.002, 0.2, averaged=True),
)
# It starts from what the mixture knows and only has to learn to do without the experts.
_DENSE: Final = (
    Cycle(150, _LIKE_REQUESTS, 0.005, 0.0025, 0.4),
    Cycle(100, _LAST[1], 0.004, 0.002, 0.2, averaged=True),
    Cycle(100, _LAST[3], 0.004, 0.002, 0.2, averaged=True),
)
RECIPES: Final = {"demo-moe": _MIXTURE, "demo-dense": _DENSE}
