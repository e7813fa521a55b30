"""Masks are written over logits exactly, however many ids they allow."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from engine.logit_mask import MaskWriter


def plainly(row, allowed):
    """What must come out, by the definition."""
    expected = np.where(allowed, row, -np.inf).astype(np.float32)
    return expected, bool(np.isfinite(expected).any())


def packed(allowed):
    """A mask as llguidance gives it: whole words of 32 bits."""
    padded = np.concatenate((allowed, np.zeros(-len(allowed) % 32, dtype=np.bool_)))
    return np.packbits(padded, bitorder="little")


def check(row, allowed):
    expected, left = plainly(row, allowed)
    mask = packed(allowed)
    assert MaskWriter(len(row)).write(row, mask) == left
    assert np.array_equal(row, expected)


@given(
    size=st.integers(1, 300),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0]),
    lost=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=300)
def test_the_mask_decides_every_logit(size, share, lost, seed):
    """Any number of ids, any share allowed, and logits that something else has ruled out before."""
    random = np.random.default_rng(seed)
    row = random.standard_normal(size).astype(np.float32)
    row[random.random(size) < lost] = -np.inf
    check(row, random.random(size) < share)


@pytest.mark.parametrize("share", [0.0, 1e-5, 1e-3, 0.01, 0.5, 0.99, 0.9999, 1.0])
def test_a_large_vocabulary(share):
    """Every way of writing is taken at 262,144 ids, one after the other with the same writer."""
    random = np.random.default_rng(1)
    check(random.standard_normal(262_144).astype(np.float32), random.random(262_144) < share)


def test_the_only_finite_logit_may_be_the_last():
    """What is left is looked for in the whole row."""
    row = np.full(10_000, -np.inf, dtype=np.float32)
    row[-1] = 1.0
    check(row, np.ones(10_000, dtype=np.bool_))


def test_rows_of_a_batch_are_written_in_place():
    """A row of llama.cpp's buffer is a view, and its neighbours stay as they are."""
    rows = np.ones((3, 40), dtype=np.float32)
    MaskWriter(40).write(rows[1], packed(np.zeros(40, dtype=np.bool_)))
    assert np.isneginf(rows[1]).all()
    assert (rows[[0, 2]] == 1.0).all()
