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
    known_pictures: int | None = None
    """How many of the encoded pictures of each colour and shape may appear; None is all."""


@dataclass(frozen=True)
class Course:
    """A number of steps on the same kinds of conversations."""

    steps: int
    diets: tuple[Diet, ...]


@dataclass(frozen=True)
class Cycle:
    """One fall of the learning rates, over courses that follow each other."""

    courses: tuple[Course, ...]
    matrix_rate: float
    other_rate: float
    hold: float
    """Share of the steps at full rates; then they fall to zero along a line."""
    words_only: bool = False
    """No pictures yet: one process trains the text model while another one trains the vision tower."""

    @property
    def steps(self) -> int:
        """Count the steps of all courses."""
        return sum(course.steps for course in self.courses)


# Each kind counts the same in a step, so what is decided by few tokens of long conversations is not drowned by short ones.
_SHORT: Final = Diet({"chat": 0.36, "form": 0.18, "sums": 0.12, "extract": 0.05, "continue": 0.17, "spell": 0.12}, 2048, 192)
_TOOLS: Final = Diet({"tool": 0.37, "choice": 0.27, "pair": 0.27, "list": 0.09}, 1792, 512)
# Which of two pictures is which is a rare decision among many easy words and is understood late, so half asks for that.
_PICTURES: Final = Diet({"picture": 0.25, "two_pictures": 0.3, "which": 0.45}, 1664, 640, pictures=True, known_pictures=96)
# Later there are more pictures: what is known of the first ones by heart does not help with others.
_LARGE: Final = replace(_PICTURES, picture_sizes=((1, 25), (1, 70), (140, 280), (140, 280)), places=1920, known_pictures=None)
_LAST: Final = (
    replace(_SHORT, places=2816, shares={"chat": 0.16, "form": 0.1, "sums": 0.06, "extract": 0.03, "continue": 0.22, "spell": 0.17, "cuts": 0.26}),
    replace(_TOOLS, places=2304, shares={"tool": 0.38, "choice": 0.16, "pair": 0.43, "tool_names": 0.03}),
    replace(_LARGE, places=1536, shares={"picture": 0.3, "two_pictures": 0.6, "which": 0.1}),
)
# Pictures of the size that requests have, and much of what is learnt last: to go on inside a word.
_LIKE_REQUESTS: Final = (
    replace(_SHORT, places=2560, shares={"chat": 0.24, "form": 0.13, "sums": 0.08, "extract": 0.03, "continue": 0.22, "spell": 0.12, "cuts": 0.18}),
    # Names of tools that are made up for a request have to be copied piece by piece.
    replace(_TOOLS, places=2176, shares={"tool": 0.4, "choice": 0.17, "pair": 0.4, "tool_names": 0.03}),
    replace(_LARGE, places=1536, shares={"picture": 0.25, "two_pictures": 0.6, "which": 0.15}),
)
_MIXTURE: Final = (
    Cycle((Course(780, (_SHORT, _TOOLS)),), 0.006, 0.003, 0.9, words_only=True),
    # By the end of the first course pictures and tools are told apart; what is left is to spell, and to do two things at once.
    Cycle((Course(1300, (_SHORT, _TOOLS, _PICTURES)), Course(900, _LIKE_REQUESTS), Course(800, _LAST)), 0.006, 0.003, 0.5),
)
# It starts from what the mixture knows and only has to learn to do without the experts.
_DENSE: Final = (Cycle((Course(120, _LIKE_REQUESTS), Course(120, _LAST)), 0.005, 0.0025, 0.3),)
RECIPES: Final = {"demo-moe": _MIXTURE, "demo-dense": _DENSE}
