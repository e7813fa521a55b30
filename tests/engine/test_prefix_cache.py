"""Choosing a slot and how much of its memory is kept."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine.images import ImageRun
from engine.llama_cpp.prefill_budget import PrefillBudget
from engine.llama_cpp.prefix_cache import (
    Checkpoint,
    Planner,
    Prompt,
    Resident,
    Slot,
    common_prefix,
    prompt_keys,
)

WINDOW = 8
short_ids = st.lists(st.integers(0, 3), max_size=30)


def slot(keys, index=0, salt="", last_used=0):
    return Slot(index, np.array(keys, dtype=np.int64), salt, last_used)


def prompt(keys, runs=(), salt=""):
    return Prompt(np.array(keys, dtype=np.int64), tuple(runs), salt)


def planner(first_position=0):
    return Planner(WINDOW, lambda _index: first_position)


def resident(keys, computed, salt=""):
    """A running sequence in slot 7 with so much of its prompt computed."""
    whole = np.array(keys, dtype=np.int64)
    return Resident(slot([], 7, salt=salt), whole[:computed], whole)


def placed(free, wanted, residents=()):
    """Where a prompt goes: slot, kept tokens, donor slot; None when it waits."""
    placement = planner().place(free, residents, wanted)
    if placement is None:
        return None
    return placement.slot.index, placement.reused, placement.donor.index if placement.donor else None


@given(short_ids, short_ids)
def test_the_common_prefix_is_the_longest_equal_start(left, right):
    """Equal up to there, different after it."""
    length = common_prefix(np.array(left, dtype=np.int64), np.array(right, dtype=np.int64))
    assert left[:length] == right[:length]
    assert length in (len(left), len(right)) or left[length] != right[length]


@given(short_ids, short_ids.filter(bool), st.integers(0, 30), st.integers(0, 10), st.integers(0, 12))
def test_reuse_never_takes_what_it_may_not(cached, wanted, first_position, run_start, run_count):
    """Reused tokens are equal, leave one to compute, split no image, and lie in memory that is still there."""
    run = ImageRun(run_start, run_count)
    reuse = planner(first_position).keep(slot(cached), np.array(cached, dtype=np.int64), prompt(wanted, [run])).reused
    assert cached[:reuse] == wanted[:reuse]
    assert reuse < len(wanted)
    assert not run.start < reuse < run.start + run.count
    assert reuse == 0 or first_position <= max(0, reuse - WINDOW + 1)


def kept(held, wanted, first_position=0):
    """What a slot can keep for a prompt: number of tokens, and whether its checkpoint is needed."""
    placement = planner(first_position).keep(held, held.keys, wanted)
    return placement.reused, placement.restore


def test_another_salt_shares_nothing():
    """The caller's salt is part of the key."""
    keys = list(range(100))
    assert kept(slot(keys, salt="a"), prompt(keys, salt="a")) == (99, False)
    assert kept(slot(keys, salt="a"), prompt(keys, salt="b")) == (0, False)


def test_dropped_sliding_memory_needs_a_checkpoint():
    """Going back further than the sliding layers remember needs a copy that still holds the window before."""
    keys = list(range(100))
    shorter = prompt([*keys[:50], 7])
    held = slot(keys)
    assert kept(held, shorter, 43) == (50, False)
    assert kept(held, shorter, 44) == (0, False)
    for first, end, expected in (
        (43, 50, (50, True)),
        (44, 50, (0, False)),
        (36, 44, (44, True)),
        (38, 44, (0, False)),
    ):
        held.checkpoint = Checkpoint(first, end, np.empty(0, dtype=np.uint8))
        assert kept(held, shorter, 44) == expected


def test_pictures_count_by_their_content():
    """Image places of different pictures differ, those of the same picture do not."""
    ids, runs = (1, 9, 9, 2), (ImageRun(1, 2),)
    one, same, other = (prompt_keys(ids, runs, [digest]) for digest in (b"a" * 16, b"a" * 16, b"b" * 16))
    assert common_prefix(one, same) == 4
    assert common_prefix(one, other) == 1
    assert (one[1:3] < 0).all()


def test_the_longest_worthwhile_prefix_wins():
    """A long common prefix decides; a short one does not cost another conversation its memory."""
    keys = list(range(100))
    slots = [slot(keys[:40], 0), slot(keys[:80], 1), slot([], 2)]
    assert placed(slots, prompt(keys)) == (1, 80, None)
    assert placed(slots, prompt([*keys[:5], *range(500, 600)])) == (2, 0, None)


def test_without_an_empty_slot_the_oldest_is_overwritten():
    """The least recently used slot goes first, and even its few equal tokens are kept."""
    slots = [slot([1, 2], 0, last_used=9), slot([1, 3], 1, last_used=4)]
    assert placed(slots, prompt([1, 7, 8])) == (1, 1, None)


def test_empty_slots_fill_from_below():
    """Neighbouring sequence ids are computed together, so low ids come first."""
    assert placed([slot([], 5), slot([], 3)], prompt([1, 2])) == (3, 0, None)


def test_a_running_sequence_lends_its_prefix():
    """A long prefix of a running sequence is copied; of another caller's, or a short one, it is not."""
    keys = list(range(300))
    wanted = prompt([*keys[:200], 999, 998])
    assert placed([slot([], 4)], wanted, [resident(keys, 300)]) == (4, 200, 7)
    assert placed([slot([], 4)], wanted, [resident(keys, 300, salt="x")]) == (4, 0, None)
    assert placed([slot([], 4)], prompt([*keys[:100], 999]), [resident(keys, 300)]) == (4, 0, None)
    assert placed([slot(keys[:150], 4)], wanted, [resident(keys, 300)]) == (4, 150, None)


def test_a_shared_prefix_that_is_being_computed_is_waited_for():
    """While another sequence computes the same long prefix, computing it twice would gain nothing."""
    keys = list(range(300))
    wanted = prompt([*keys[:200], 999, 998])
    for computed in (0, 40, 150, 199):
        assert placed([slot([], 4)], wanted, [resident(keys, computed)]) is None
    assert placed([slot([], 4)], wanted, [resident(keys, 200)]) == (4, 200, 7)
    assert placed([slot([], 4)], prompt([*keys[:100], 999]), [resident(keys, 40)]) == (4, 0, None)
    assert placed([slot(keys[:100], 4)], wanted, [resident(keys, 150)]) == (4, 100, None)
    assert placed([slot([], 4)], wanted, [resident(keys, 40, salt="x")]) == (4, 0, None)


def test_a_long_conversation_is_copied_rather_than_cut():
    """When a free slot shares a prefix but holds much more, an empty slot takes a copy."""
    keys = list(range(600))
    wanted = prompt([*keys[:200], 999])
    assert placed([slot(keys, 0), slot([], 1)], wanted) == (1, 200, 0)
    assert placed([slot(keys, 0), slot([5], 1)], wanted) == (0, 200, None)


def test_the_prefill_budget_follows_the_speed():
    """A slow machine gets small pieces, a fast one whole batches, and fewer while sequences run."""
    budget = PrefillBudget(1280)
    for _ in range(50):
        budget.record(tokens=64, seconds=0.64)
    assert budget.tokens(running=False) == 32
    for _ in range(50):
        budget.record(tokens=1000, seconds=0.1)
    assert budget.tokens(running=False) == 1280
    assert budget.tokens(running=True) == pytest.approx(500, abs=2)
