"""When a crashed process is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.supervision.restarts import LONGEST_PAUSE_S, WINDOW_S, RestartBudget


def test_pauses_double_up_to_a_limit() -> None:
    """The first restart comes at once enough to be back within seconds, later ones wait longer."""
    budget = RestartBudget(8)

    pauses = [budget.pause_after_crash(float(second)) for second in range(8)]

    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_too_many_crashes_end_it() -> None:
    """One crash more than allowed within the window means no further start."""
    budget = RestartBudget(2)

    assert [budget.pause_after_crash(0.0) for _ in range(3)] == [0.2, 0.4, None]


def test_no_restart_may_be_allowed() -> None:
    """NIM_MAX_ENGINE_RESTARTS=0 means that the first crash is the last."""
    assert RestartBudget(0).pause_after_crash(0.0) is None


def test_old_crashes_are_forgiven() -> None:
    """A crash every now and then goes on for ever, with the shortest pause."""
    budget = RestartBudget(1)

    assert [budget.pause_after_crash(number * (WINDOW_S + 1)) for number in range(5)] == [0.2] * 5


@given(st.integers(0, 10), st.lists(st.floats(0, 5000), max_size=40).map(sorted))
def test_never_more_starts_than_allowed_in_any_window(allowed: int, crashes: list[float]) -> None:
    """However crashes fall, within any ten minutes at most the allowed number is answered by a start."""
    budget = RestartBudget(allowed)
    answered = [moment for moment in crashes if budget.pause_after_crash(moment) is not None]

    for moment in answered:
        assert sum(moment <= other <= moment + WINDOW_S for other in answered) <= allowed
