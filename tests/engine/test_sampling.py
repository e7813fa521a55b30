"""Drawing ids: the vectorised code against plain definitions, and against probabilities."""

from __future__ import annotations

import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine.core import EngineRequest, Sampling
from engine.llama_cpp import sampling
from engine.llama_cpp.sampling import SequenceSampler, draw, raw_logprobs, top_candidates

VOCAB = 300


def sampler(prompt=(0,), stop_ids=(), min_tokens=0, *, ignore_stop_ids=False, **settings):
    request = EngineRequest(
        "r",
        tuple(prompt),
        9,
        sampling=Sampling(**settings),
        stop_ids=stop_ids,
        min_tokens=min_tokens,
        ignore_stop_ids=ignore_stop_ids,
    )
    return SequenceSampler(request, VOCAB)


def normal_logits(rows=1, seed=0, scale=3.0):
    return np.random.default_rng(seed).normal(0, scale, (rows, VOCAB)).astype(np.float32)


def allowed_by_definition(row, settings):
    """The ids that may be drawn and their probabilities, written as the definitions say, with a full sort."""
    weights = np.exp(row.astype(np.float64) / settings.temperature)
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    if settings.top_k:
        order = order[: settings.top_k]
    total = sum(weights[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if settings.top_p < 1.0 and mass >= settings.top_p:
            break
        mass += weights[i] / total
        if weights[i] >= settings.min_p * weights[order[0]]:
            kept.append(i)
    share = sum(weights[i] for i in kept)
    return {i: weights[i] / share for i in kept}


settings_strategy = st.builds(
    dict,
    temperature=st.floats(0.2, 3.0),
    top_k=st.sampled_from([0, 1, 2, 5, 40, 299, 300, 5000]),
    top_p=st.sampled_from([0.01, 0.3, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
)


@given(settings_strategy, st.integers(0, 1000))
def test_only_ids_inside_all_filters_are_drawn(settings, seed):
    """top-k, top-p and min-p together allow what their definitions allow."""
    logits = normal_logits(seed=seed)
    allowed = allowed_by_definition(logits[0], Sampling(**settings))
    drawing = sampler(seed=seed, **settings)
    drawn = {draw(logits.copy(), [drawing])[0] for _ in range(20)}
    assert drawn <= set(allowed)


@pytest.mark.parametrize(
    "settings", [{"top_k": 8}, {"top_k": 0, "top_p": 0.8}, {"top_k": 0, "min_p": 0.1, "top_p": 1.0}]
)
def test_frequencies_follow_the_probabilities(settings):
    """Over many draws every allowed id comes about as often as its probability says."""
    settings = {"temperature": 1.3, "seed": 5} | settings
    logits = normal_logits(seed=3)
    expected = allowed_by_definition(logits[0], Sampling(**settings))
    drawing = sampler(**settings)
    count = 6000
    counts = Counter(draw(logits, [drawing])[0] for _ in range(count))
    for token_id, probability in expected.items():
        assert counts[token_id] / count == pytest.approx(probability, abs=4 * math.sqrt(probability / count) + 1e-3)


def test_rows_do_not_depend_on_their_neighbours():
    """A sequence draws the same ids alone and in a mixed batch."""
    kinds = [{"temperature": 0.0}, {"top_k": 5}, {"top_k": 0}, {"top_k": 40, "top_p": 0.5}, {"top_k": 0, "top_p": 0.7}]
    logits = normal_logits(rows=len(kinds), seed=8)
    together = [sampler(seed=i, **kind) for i, kind in enumerate(kinds)]
    alone = [sampler(seed=i, **kind) for i, kind in enumerate(kinds)]
    for _ in range(30):
        joint = draw(logits.copy(), together)
        single = [draw(logits[i : i + 1].copy(), [alone[i]])[0] for i in range(len(kinds))]
        assert joint == single


def test_a_flat_nucleus_reaches_beyond_the_candidates(monkeypatch):
    """When the nucleus needs more ids than the candidate limit, all of them take part."""
    monkeypatch.setattr(sampling, "MAX_CANDIDATES", 16)
    logits = np.zeros((1, VOCAB), dtype=np.float32)
    drawing = sampler(temperature=1.0, top_k=0, top_p=0.99, seed=1)
    assert len({draw(logits, [drawing])[0] for _ in range(2000)}) > 250


@pytest.mark.parametrize("wide", [VOCAB - 1, VOCAB], ids=["in blocks", "whole"])
@pytest.mark.parametrize("count", [1, 2, 18, 19, 100, VOCAB, 5000])
def test_candidates_are_sorted_and_break_ties_by_id(monkeypatch, wide, count):
    """The largest logits come in descending order, equal ones in the order of their ids, whatever the search."""
    monkeypatch.setattr(sampling, "WIDE_VOCABULARY", wide)
    monkeypatch.setattr(sampling, "BLOCK", 16)
    logits = normal_logits(rows=3).round(0)
    ids, values = top_candidates(logits, count)
    for row in range(3):
        assert values[row].tolist() == np.sort(logits[row])[::-1][:count].tolist()
        inside = ids[row][values[row] > values[row][-1]].tolist()
        assert inside == np.argsort(-logits[row], kind="stable")[: len(inside)].tolist()


@pytest.mark.parametrize("wide", [VOCAB - 1, VOCAB], ids=["in blocks", "whole"])
def test_masked_rows_give_what_is_left(monkeypatch, wide):
    """A grammar may leave fewer ids than top-k asks for; only those are drawn."""
    monkeypatch.setattr(sampling, "WIDE_VOCABULARY", wide)
    monkeypatch.setattr(sampling, "BLOCK", 16)
    logits = np.full((1, VOCAB), -np.inf, dtype=np.float32)
    logits[0, [5, 250]] = (1.0, 1.5)
    drawing = sampler(temperature=1.0, top_k=40, top_p=1.0, seed=1)
    assert {draw(logits, [drawing])[0] for _ in range(50)} == {5, 250}


@given(st.integers(0, 10_000), st.integers(0, 20))
def test_raw_logprobs_are_a_log_softmax(seed, count):
    """Log-probabilities match the definition in double precision."""
    row = normal_logits(seed=seed)[0]
    wanted = row.astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum())
    raw = raw_logprobs(row, count)
    assert raw.of(17).logprob == pytest.approx(wanted[17], abs=1e-4)
    assert [i for i, _ in raw.top] == np.argsort(-row, kind="stable")[:count].tolist()
    assert [v for _, v in raw.top] == pytest.approx(np.sort(wanted)[::-1][:count].tolist(), abs=1e-4)


def test_penalties_follow_their_definitions():
    """Repetition counts prompt and drawn ids; presence and frequency count drawn ids only."""
    drawing = sampler(prompt=(1, 2), repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    for token_id in (3, 3, 4):
        drawing.record(token_id)
    row = np.full(VOCAB, 8.0, dtype=np.float32)
    row[2] = -8.0
    assert drawing.adjusts
    drawing.adjust(row)
    assert row[:6].tolist() == [8.0, 4.0, -16.0, 4.0 - 0.5 - 0.5, 4.0 - 0.5 - 0.25, 8.0]


def test_stop_ids_come_back_after_min_tokens():
    """Stop ids are ruled out until min_tokens ids were drawn, or for ever when ignored."""
    postponing, ignoring = sampler(stop_ids=(5,), min_tokens=2), sampler(stop_ids=(5,), ignore_stop_ids=True)
    for drawing, allowed_after in ((postponing, 2), (ignoring, 99)):
        for drawn in range(4):
            row = np.zeros(VOCAB, dtype=np.float32)
            drawing.adjust(row)
            assert np.isfinite(row[5]) == (drawn >= allowed_after) == drawing.stops_allowed
            drawing.record(9)


def test_neutral_settings_change_nothing():
    """Without bias, penalties or forbidden ids there is nothing to adjust."""
    assert not sampler(stop_ids=(3,)).adjusts
