"""The accuracy gate: compares a bundle's answers with those of unquantised weights, and decides. Pure.

Three figures decide. The divergence of the next-token distributions and the agreement on the likeliest token are taken
at every position of the unquantised model's answers; the score is the share of questions that were answered right,
measured against the unquantised model's own, so a model that knows little is not refused for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ConfigDict

from engine_build.answers import Answer, Position
from engine_build.questions import Question

LEAST_POSITIONS: Final = 50
"""Fewer positions than this say too little."""
SMALLEST_PROBABILITY: Final = 1e-6
"""Below this the rounding of log-probabilities decides."""
ROUNDING: Final = 1e-9


class Thresholds(BaseModel):
    """What a bundle must reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_mean_divergence: float
    """Mean Kullback-Leibler divergence from the unquantised distribution, in nats per token."""
    min_agreement: float
    """Share of positions at which both hold the same token likeliest."""
    max_score_drop: float
    """How much smaller the share of right answers may be."""


class Figures(BaseModel):
    """What was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positions: int
    mean_divergence: float
    worst_divergence: float
    agreement: float
    score: float
    reference_score: float
    identical_answers: int
    questions: int


class GateResult(BaseModel):
    """The figures, what they had to be, and what was missed; ``failures`` is empty for a bundle that passed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: Figures
    thresholds: Thresholds
    failures: tuple[str, ...]


THRESHOLDS: Final[Mapping[str, Thresholds]] = MappingProxyType(
    {
        # Rounding only: what differs is the order of additions, and 7 or 10 bits of mantissa.
        "f32": Thresholds(max_mean_divergence=0.001, min_agreement=0.99, max_score_drop=0.0),
        "f16": Thresholds(max_mean_divergence=0.001, min_agreement=0.99, max_score_drop=0.0),
        "bf16": Thresholds(max_mean_divergence=0.01, min_agreement=0.97, max_score_drop=0.04),
        "q8_0": Thresholds(max_mean_divergence=0.01, min_agreement=0.97, max_score_drop=0.04),
        "fp8": Thresholds(max_mean_divergence=0.05, min_agreement=0.93, max_score_drop=0.04),
        "nvfp4": Thresholds(max_mean_divergence=0.15, min_agreement=0.88, max_score_drop=0.08),
        "q4_k_m": Thresholds(max_mean_divergence=0.15, min_agreement=0.88, max_score_drop=0.08),
    }
)
"""What each precision must reach. An 8-bit form that is in order stays far below, a broken one is far beyond."""


def judge(
    questions: Sequence[Question],
    reference: Sequence[Answer | None],
    own: Sequence[Answer | None],
    followed: Sequence[tuple[Position, ...] | None],
    thresholds: Thresholds,
) -> GateResult:
    """Compare and decide.

    Args:
        questions: what was asked.
        reference: the unquantised model's answers.
        own: the bundle's own answers.
        followed: what the bundle holds likely at each position of ``reference``.
        thresholds: what must be reached.
    """
    divergences: list[float] = []
    agreed = 0
    for answer, positions in zip(reference, followed, strict=True):
        for there, here in zip(answer.positions if answer else (), positions or (), strict=True):
            divergences.append(divergence(there, here))
            agreed += there.ids[0] == here.ids[0]
    pairs = [(one, other) for one, other in zip(reference, own, strict=True) if one is not None and other is not None]
    count = len(divergences)
    figures = Figures(
        positions=count,
        mean_divergence=sum(divergences) / count if count else 0.0,
        worst_divergence=max(divergences, default=0.0),
        agreement=agreed / count if count else 0.0,
        score=score(questions, own),
        reference_score=score(questions, reference),
        identical_answers=sum(one.ids == other.ids for one, other in pairs),
        questions=len(pairs),
    )
    return GateResult(figures=figures, thresholds=thresholds, failures=tuple(_failures(figures, thresholds)))


def divergence(reference: Position, other: Position) -> float:
    """Return the Kullback-Leibler divergence of ``other`` from ``reference``, in nats, never below 0.

    Only the likeliest tokens are known, so it is the least that fits what is known. Tokens that both list are outcomes.
    Those that only ``reference`` lists are one more: in ``other`` each has no more than the last that it lists, and all
    together no more than what it leaves. All others are the last outcome.
    """
    there = {token: math.exp(value) for token, value in zip(reference.ids, reference.logprobs, strict=True)}
    here = {token: math.exp(value) for token, value in zip(other.ids, other.logprobs, strict=True)}
    pairs = [(there[token], here[token]) for token in there if token in here]
    missing = [token for token in there if token not in here]
    then_missing, then_rest = sum(there[token] for token in missing), max(1.0 - sum(there.values()), 0.0)
    left = max(1.0 - sum(now for _, now in pairs), 0.0)
    bound = min(len(missing) * min(here.values(), default=1.0), max(1.0 - sum(here.values()), 0.0))
    # Of all ways to share out what is left, this one is the nearest to the reference.
    unlisted = then_missing + then_rest
    now_missing = min(bound, left * then_missing / unlisted) if unlisted > 0 else 0.0
    pairs += [(then_missing, now_missing), (then_rest, left - now_missing)]
    known = [(then, max(now, SMALLEST_PROBABILITY)) for then, now in pairs if then > SMALLEST_PROBABILITY]
    return max(sum(then * math.log(then / now) for then, now in known), 0.0)


def score(questions: Sequence[Question], answers: Sequence[Answer | None]) -> float:
    """Return the share of right answers among those that can be right or wrong."""
    verdicts = [
        verdict
        for question, answer in zip(questions, answers, strict=True)
        if answer is not None and (verdict := question.is_answered_by(answer.text)) is not None
    ]
    return sum(verdicts) / len(verdicts) if verdicts else 0.0


def _failures(figures: Figures, thresholds: Thresholds) -> Iterator[str]:
    if figures.positions < LEAST_POSITIONS:
        yield f"only {figures.positions} positions could be compared, {LEAST_POSITIONS} are needed"
    if figures.mean_divergence > thresholds.max_mean_divergence:
        yield f"divergence {figures.mean_divergence:.4f}, at most {thresholds.max_mean_divergence:g} is allowed"
    if figures.agreement < thresholds.min_agreement:
        yield f"agreement {figures.agreement:.1%}, at least {thresholds.min_agreement:.0%} is needed"
    if figures.reference_score - figures.score > thresholds.max_score_drop + ROUNDING:
        yield (
            f"{figures.score:.1%} of the questions answered right, the unquantised model {figures.reference_score:.1%}"
        )
