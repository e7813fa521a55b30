"""The recipes can be followed: their skills exist, and half a step has room for the longest conversation."""

from __future__ import annotations

import pytest

from demo.conversations import BUILDERS
from demo.recipes import RECIPES, Diet

DIETS = [diet for cycles in RECIPES.values() for cycle in cycles for diet in cycle.diets]
_PICTURE_SKILLS = {"picture", "two_pictures", "which"}


@pytest.mark.parametrize("diet", DIETS)
def test_a_diet_can_be_served(diet: Diet) -> None:
    """Shares are those of known skills and make one; a process's half of a step holds any conversation."""
    assert diet.shares.keys() <= BUILDERS.keys()
    assert sum(diet.shares.values()) == pytest.approx(1)
    assert diet.places // 2 >= diet.longest
    assert diet.pictures == bool(_PICTURE_SKILLS & diet.shares.keys())


@pytest.mark.parametrize("name", RECIPES)
def test_cycles_without_pictures_come_first_and_means_last(name: str) -> None:
    """Weights are averaged at the end only, and a cycle without pictures comes while there are none yet."""
    cycles = RECIPES[name]
    first_averaged = next(index for index, cycle in enumerate(cycles) if cycle.averaged)

    assert all(cycle.averaged for cycle in cycles[first_averaged:])
    assert not any(cycle.words_only for cycle in cycles[1:])
    assert not any(diet.pictures for cycle in cycles if cycle.words_only for diet in cycle.diets)
