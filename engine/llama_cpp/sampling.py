"""Drawing the next id from logits, for all sequences of a step at once.

Order of the stages, per row: logit bias, repetition, presence and frequency penalty, forbidden ids
(``SequenceSampler.adjust``), grammar mask; then temperature, top-k, top-p, min-p, draw. Log-probabilities are those of
the raw logits. Nothing loops over the vocabulary in Python, and nothing sorts it unless a very flat nucleus needs that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.core import TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engine.core import EngineRequest

MAX_CANDIDATES = 1024
"""Largest top-k that is drawn from candidates; above it the whole vocabulary takes part."""
WIDE_VOCABULARY = 32_768
"""Rows longer than this are searched in blocks."""
BLOCK = 256
LEAST_TEMPERATURE = 1e-5
"""Below, the most likely id is drawn: dividing by less would overflow, and what comes out is no number."""


class SequenceSampler:
    """What one sequence needs for drawing: its settings, its random numbers, and its counts for the penalties."""

    def __init__(self, request: EngineRequest, vocab_size: int) -> None:
        self.settings = request.sampling
        self.logprobs = request.logprobs
        self.greedy = request.sampling.temperature < LEAST_TEMPERATURE
        self._random = random.Random(request.sampling.seed)  # noqa: S311 - sampling, not cryptography
        self._bias_ids = np.fromiter(request.sampling.logit_bias.keys(), dtype=np.int64)
        self._bias_values = np.fromiter(request.sampling.logit_bias.values(), dtype=np.float32)
        self._stop_ids = np.array(request.stop_ids, dtype=np.int64)
        self._min_tokens = request.min_tokens
        self._ignore_stop_ids = request.ignore_stop_ids
        self._drawn = 0
        settings = request.sampling
        self._repeats = settings.repetition_penalty != 1.0
        self._counts_drawn = settings.presence_penalty != 0.0 or settings.frequency_penalty != 0.0
        if self._repeats:
            self._seen = np.zeros(vocab_size, dtype=np.bool_)
            self._seen[np.array(request.prompt_ids, dtype=np.int64)] = True
        if self._counts_drawn:
            self._counts = np.zeros(vocab_size, dtype=np.float32)

    @property
    def adjusts(self) -> bool:
        """Whether ``adjust`` would change anything now."""
        return bool(self._repeats or self._counts_drawn or len(self._bias_ids) or self._stops_forbidden)

    @property
    def _stops_forbidden(self) -> bool:
        return len(self._stop_ids) > 0 and (self._ignore_stop_ids or self._drawn < self._min_tokens)

    @property
    def stops_allowed(self) -> bool:
        """Whether a stop id may be drawn now."""
        return not (self._ignore_stop_ids or self._drawn < self._min_tokens)

    def adjust(self, row: NDArray[np.float32]) -> None:
        """Apply bias, penalties and forbidden ids to one row of logits, in place."""
        settings = self.settings
        if len(self._bias_ids):
            row[self._bias_ids] += self._bias_values
        if self._repeats:
            ids = np.flatnonzero(self._seen)
            values = row[ids]
            penalty = np.float32(settings.repetition_penalty)
            row[ids] = np.where(values > 0, values / penalty, values * penalty)
        if self._counts_drawn:
            ids = np.flatnonzero(self._counts)
            counts = self._counts[ids]
            row[ids] -= np.float32(settings.frequency_penalty) * counts + np.float32(settings.presence_penalty)
        if self._stops_forbidden:
            row[self._stop_ids] = -np.inf

    def record(self, token_id: int) -> None:
        """Count a drawn id."""
        self._drawn += 1
        if self._repeats:
            self._seen[token_id] = True
        if self._counts_drawn:
            self._counts[token_id] += 1

    def random(self) -> float:
        """Return the sequence's next random number in [0, 1)."""
        return self._random.random()


@dataclass(frozen=True, slots=True)
class RawLogprobs:
    """Log-softmax of one row before any change, kept as far as a TokenLogprob needs it."""

    logits: NDArray[np.float32]
    normaliser: float
    top: tuple[tuple[int, float], ...]

    def of(self, token_id: int) -> TokenLogprob:
        """Return the entry of the drawn id."""
        return TokenLogprob(token_id, float(self.logits[token_id]) - self.normaliser, self.top)


def raw_logprobs(row: NDArray[np.float32], count: int) -> RawLogprobs:
    """Compute the log-softmax of a row and its ``count`` most likely ids; the row is copied, so it may change later."""
    logits = row.copy()
    highest = float(logits.max())
    normaliser = highest + float(np.log(np.exp(logits - highest, dtype=np.float32).sum(dtype=np.float64)))
    top: tuple[tuple[int, float], ...] = ()
    if count:
        ids, values = top_candidates(logits[None, :], count)
        top = tuple((int(i), float(v) - normaliser) for i, v in zip(ids[0], values[0], strict=True))
    return RawLogprobs(logits, normaliser, top)


def top_candidates(logits: NDArray[np.float32], count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return ids and values [rows, at most count] of each row's largest logits, largest first; ties by ascending id.

    A row with fewer finite logits is filled up with places of value minus infinity.
    """
    rows, size = logits.shape
    count = min(count, size)
    if size <= WIDE_VOCABULARY:
        ids = np.argpartition(logits, size - count, axis=1)[:, size - count :]
        ids.sort(axis=1)
        # Plain indexing: numpy's take_along_axis costs several times as much on arrays of this size.
        row = np.arange(rows)[:, None]
        values = logits[row, ids]
        order = np.argsort(-values, axis=1, kind="stable")
        return ids[row, order], values[row, order]
    ids = np.zeros((rows, count), dtype=np.intp)
    values = np.full((rows, count), -np.inf, dtype=np.float32)
    for place, row_logits in enumerate(logits):
        found = _largest(row_logits, count)
        ids[place, : len(found)] = found
        values[place, : len(found)] = row_logits[found]
    return ids, values


def _largest(row: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the ids of the largest finite logits of a long row, largest first.

    At least ``count`` logits reach the count-th largest of the blocks' maxima, and hardly more do. Finding those takes
    two passes over the row, a tenth of the time of selecting among all of it.
    """
    blocks = row[: len(row) // BLOCK * BLOCK].reshape(-1, BLOCK).max(axis=1)
    lowest = np.float32(-np.inf)
    if count <= len(blocks):
        lowest = np.partition(blocks, len(blocks) - count)[len(blocks) - count]
    ids = np.flatnonzero(row >= lowest if np.isfinite(lowest) else np.isfinite(row))
    if len(ids) > MAX_CANDIDATES + count:
        ids = np.sort(ids[np.argpartition(-row[ids], count)[: count + 1]])
    return ids[np.argsort(-row[ids], kind="stable")[:count]]


def draw(logits: NDArray[np.float32], samplers: Sequence[SequenceSampler]) -> list[int]:
    """Draw one id per row of adjusted logits [rows, vocab_size]; every row has at least one finite entry."""
    greedy = [row for row, sampler in enumerate(samplers) if sampler.greedy]
    if len(greedy) == len(samplers):
        return [int(i) for i in logits.argmax(axis=1)]
    drawn = [0] * len(samplers)
    for row in greedy:
        drawn[row] = int(logits[row].argmax())
    limit = min(MAX_CANDIDATES, logits.shape[1])
    narrow = [r for r, s in enumerate(samplers) if not s.greedy and 0 < s.settings.top_k <= limit]
    if narrow:
        rows = logits if len(narrow) == len(samplers) else logits[narrow]
        for row, token_id in zip(narrow, _draw_narrow(rows, [samplers[r] for r in narrow]), strict=True):
            drawn[row] = token_id
    narrow_rows = set(narrow)
    for row, sampler in enumerate(samplers):
        if not sampler.greedy and row not in narrow_rows:
            drawn[row] = _draw_wide(logits[row], sampler)
    return drawn


def _draw_narrow(logits: NDArray[np.float32], samplers: Sequence[SequenceSampler]) -> list[int]:
    """Draw from each row's top-k candidates, all rows in the same array operations."""
    settings = [sampler.settings for sampler in samplers]
    columns = np.array(
        [(s.temperature, s.top_p, s.min_p, s.top_k, r.random()) for s, r in zip(settings, samplers, strict=True)]
    )
    temperature, top_p, min_p, top_k, random_number = (columns[:, i, None] for i in range(5))
    ids, values = top_candidates(logits, max(s.top_k for s in settings))
    weights = np.exp((values - values[:, :1]) / temperature)
    if len(settings) > 1:
        weights[np.arange(weights.shape[1]) >= top_k] = 0.0
    # An id belongs to the nucleus while the ids before it hold less than top_p; top_p 1 keeps all despite rounding.
    sums = weights.cumsum(axis=1)
    weights[(sums - weights >= top_p * sums[:, -1:]) & (top_p < 1.0)] = 0.0
    weights[weights < min_p * weights[:, :1]] = 0.0
    sums = weights.cumsum(axis=1)
    chosen = (sums > random_number * sums[:, -1:]).argmax(axis=1)
    return [int(i) for i in ids[np.arange(len(ids)), chosen]]


def _draw_wide(row: NDArray[np.float32], sampler: SequenceSampler) -> int:
    """Draw from the whole vocabulary of one row (top-k off or very large)."""
    settings = sampler.settings
    size = len(row)
    # Single precision is exact enough for weights; what adds up many of them uses double precision.
    weights = np.exp((row - row.max()) * np.float32(1.0 / settings.temperature))
    top_k = settings.top_k if 0 < settings.top_k < size else size
    if top_k == size and settings.top_p >= 1.0:
        if settings.min_p > 0.0:
            weights[weights < settings.min_p] = 0.0
        return _choose(weights, sampler.random())
    ids, kept = _descending(weights, top_k, settings.top_p)
    sums = kept.cumsum(dtype=np.float64)
    total = sums[-1] if top_k < size else weights.sum(dtype=np.float64)
    if settings.top_p < 1.0:
        kept[sums - kept >= settings.top_p * total] = 0.0
    kept[kept < settings.min_p] = 0.0  # the largest weight is 1
    return int(ids[_choose(kept, sampler.random())])


def _choose(weights: NDArray[np.float32], random_number: float) -> int:
    """Return a place with a probability in proportion to its weight."""
    sums = weights.cumsum(dtype=np.float64)
    return int(np.searchsorted(sums, random_number * sums[-1], side="right"))


def _descending(weights: NDArray[np.float32], top_k: int, top_p: float) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the largest weights with their ids in descending order, as many as the nucleus or top-k can need."""
    size = len(weights)
    if top_k == size:
        wanted = top_p * weights.sum(dtype=np.float64)
        for count in (MAX_CANDIDATES, 16 * MAX_CANDIDATES):
            if count < size:
                ids, values = top_candidates(weights[None, :], count)
                if values[0].sum(dtype=np.float64) >= wanted:
                    return ids[0], values[0]
    order = np.argsort(-weights, kind="stable")[:top_k]
    return order, weights[order]
