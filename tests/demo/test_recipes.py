"""The recipes can be followed: their skills exist, and half a step has room for the longest conversation."""

from __future__ import annotations

import pytest

from demo.conversations import BUILDERS
from demo.recipes import RECIPES, Diet

DIETS = [diet for cycles in RECIPES.values() for cycle in cycles for course in cycle.courses for diet in course.diets]
_PICTURE_SKILLS = {"picture", "two_pictures", "which"}


@pytest.mark.parametrize("diet", DIETS)
def test_a_diet_can_be_served(diet: Diet) -> None:
    """Shares are those of known skills and make one; a process's half of a step holds any conversation."""
    assert diet.shares.keys() <= BUILDERS.keys()
    assert sum(diet.shares.values()) == pytest.approx(1)
    assert diet.places // 2 >= diet.longest
    assert diet.pictures == bool(_PICTURE_SKILLS & diet.shares.keys())


@pytest.mark.parametrize("name", RECIPES)
def test_the_rates_fall_once_after_pictures_are_there(name: str) -> None:
    """When they rise again, what was reached is lost; only the steps without pictures have a fall of their own."""
    *before, main = RECIPES[name]
    without_pictures = [diet for cycle in before for course in cycle.courses for diet in course.diets]

    assert all(cycle.words_only for cycle in before)
    assert not any(diet.pictures for diet in without_pictures)
    assert all(any(diet.pictures for diet in course.diets) for course in main.courses)
    assert not main.words_only
