"""The accuracy gate: what it measures, and what it lets pass."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_build.answers import Answer, Position
from engine_build.gate import LEAST_POSITIONS, THRESHOLDS, GateResult, divergence, judge
from engine_build.questions import Question

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a busy machine an example may take seconds."""
QUESTIONS = tuple(Question(ask=f"{number}?", expect=(str(number),)) for number in range(20))


def position(*probabilities: float) -> Position:
    """Return a position where token n has the n-th probability; the likeliest first, as cores give them."""
    pairs = sorted(((p, n) for n, p in enumerate(probabilities) if p > 0), reverse=True)
    return Position(ids=tuple(n for _, n in pairs), logprobs=tuple(math.log(p) for p, _ in pairs))


def answers(*, right: int = 20, sure: float = 0.9, first: int = 0) -> list[Answer]:
    """Return an answer of five tokens per question; ``right`` of them are right, ``first`` is held likeliest."""
    shares = [0.1 * (1 - sure), 0.1 * (1 - sure)]
    shares[first] = sure
    return [
        Answer(ids=(first,) * 5, text=str(number) if number < right else "no", positions=(position(*shares),) * 5)
        for number in range(20)
    ]


def verdict(own: list[Answer], precision: str = "q8_0") -> GateResult:
    """Judge answers against perfect ones."""
    return judge(QUESTIONS, answers(), own, [one.positions for one in own], THRESHOLDS[precision])


distributions = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=20).map(
    lambda weights: position(*(weight / sum(weights) * 0.999 for weight in weights))
)


@PATIENT
@given(distributions, distributions)
def test_a_divergence_is_never_negative(one: Position, other: Position) -> None:
    """It is 0 for the same distribution, and finite even where the two share no token."""
    assert divergence(one, one) == pytest.approx(0.0, abs=1e-9)
    assert 0.0 <= divergence(one, other) < math.inf


def test_a_divergence_is_the_kullback_leibler_one() -> None:
    """Where all tokens are known it is the textbook's sum."""
    exact = 0.7 * math.log(0.7 / 0.5) + 0.3 * math.log(0.3 / 0.5)

    assert divergence(position(0.7, 0.3), position(0.5, 0.5)) == pytest.approx(exact, abs=1e-4)


def test_a_token_that_is_not_listed_counts() -> None:
    """A model that does not even list the likeliest token diverges far more than any threshold allows."""
    assert divergence(position(0.9, 0.05, 0, 0), position(0, 0, 0.9, 0.05)) > 2


def test_equal_answers_pass() -> None:
    """A bundle that answers as the unquantised weights do passes at every precision."""
    for precision in THRESHOLDS:
        assert verdict(answers(), precision).failures == ()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (answers(sure=0.6), "divergence"),
        (answers(first=1), "agreement 0.0%"),
        (answers(right=18), "90.0% of the questions answered right, the unquantised model 100.0%"),
    ],
)
def test_each_shortfall_is_named_with_its_figures(own: list[Answer], words: str) -> None:
    """Too different a distribution, another likeliest token, fewer right answers: each is refused by itself."""
    assert any(words in failure for failure in verdict(own).failures)


def test_a_model_that_knows_little_is_not_refused_for_that() -> None:
    """The score counts against the unquantised model's own."""
    poor = answers(right=2)
    result = judge(QUESTIONS, poor, poor, [one.positions for one in poor], THRESHOLDS["q4_k_m"])

    assert result.failures == ()
    assert result.figures.score == pytest.approx(0.1)


def test_too_few_positions_say_nothing() -> None:
    """A comparison of a handful of tokens does not count as one."""
    few = answers()[:2]
    result = judge(QUESTIONS[:2], few, few, [one.positions for one in few], THRESHOLDS["q8_0"])

    assert result.failures == (f"only 10 positions could be compared, {LEAST_POSITIONS} are needed",)


def test_pictures_are_left_out_where_there_is_no_tower() -> None:
    """Questions that neither could see are counted nowhere."""
    own: list[Answer | None] = [*answers()[:-1], None]
    result = judge(QUESTIONS, own, own, [one.positions if one else None for one in own], THRESHOLDS["f16"])

    assert result.failures == ()
    assert result.figures.questions == 19
