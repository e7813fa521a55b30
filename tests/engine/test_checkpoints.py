"""Going back further than the sliding layers remember: the slot pool's checkpoints, with a real context."""

from __future__ import annotations

import numpy as np
import pytest

from engine.core import EngineRequest
from engine.llama_cpp import slot_pool
from engine.llama_cpp.context import Context, ContextOptions, Span
from engine.llama_cpp.model import Model
from engine.llama_cpp.prefix_cache import EMPTY_KEYS, Prompt
from engine.llama_cpp.sampling import SequenceSampler
from engine.llama_cpp.sequence import Sequence
from engine.llama_cpp.slot_pool import CHECKPOINT_DISTANCE, SlotPool

BATCH = 64
PROMPT = 150


@pytest.fixture
def model(model_dir):
    model = Model(model_dir / "model.gguf")
    yield model
    model.close()


@pytest.fixture
def context(model):
    context = Context(model, ContextOptions(model.sliding_window + 2048, 2, BATCH, 1))
    yield context
    context.close()


def sequence_of(ids, vocab_size):
    request = EngineRequest("r", tuple(ids), 9999)
    prompt = Prompt(np.array(ids, dtype=np.int64), (), "")
    return Sequence(request, prompt, (), SequenceSampler(request, vocab_size), None, mailbox=None)


def compute(context, slot, ids, start):
    """Decode ids from a position on; returns the logits after the last one."""
    logits = None
    for place in range(start, len(ids), BATCH):
        piece = ids[place : place + BATCH]
        is_last = place + len(piece) == len(ids)
        logits = context.decode_tokens([Span(slot, place, piece, output=is_last)])
    return logits[0].copy()


def converse(context, pool, sequence, completion):
    """Compute a prompt, then draw the given ids one by one as the batcher does."""
    assert pool.place(sequence, [])
    while sequence.is_prefilling:
        ids = sequence.next_text(BATCH)
        context.decode_tokens([Span(sequence.held_slot.index, sequence.position, ids, output=True)])
        sequence.position += len(ids)
        pool.save(sequence)
    for token_id in completion:
        sequence.drawn.append(token_id)
        context.decode_tokens([Span(sequence.held_slot.index, sequence.position, (token_id,), output=True)])
        sequence.position += 1
    pool.release(sequence)


def test_a_long_completion_leaves_a_way_back(model, context, vocabulary):
    """After a completion that overwrote the prompt's window, the prompt is reused, and rightly so."""
    pool = SlotPool(context, 2, model.sliding_window)
    prompt = list(vocabulary.prompt(max(PROMPT, model.sliding_window + 40)))
    completion = list(vocabulary.ordinary(context.sliding_tokens - model.sliding_window + 100, seed=6))
    first = sequence_of(prompt, model.vocab_size)
    converse(context, pool, first, completion)

    next_turn = [*prompt, *vocabulary.ordinary(30, seed=8)]
    second = sequence_of(next_turn, model.vocab_size)
    assert pool.place(second, [])
    assert second.cached == len(prompt) - CHECKPOINT_DISTANCE
    continued = compute(context, second.held_slot.index, next_turn, second.position)
    fresh = compute(context, 1 - second.held_slot.index, next_turn, 0)
    assert np.abs(continued - fresh).max() < 0.5
    assert continued.argmax() == fresh.argmax()


def test_without_a_checkpoint_the_prompt_is_computed_again(monkeypatch, model, context, vocabulary):
    """When checkpoints may take no memory, nothing is reused that is not there."""
    monkeypatch.setattr(slot_pool, "CHECKPOINT_BYTES", 0)
    pool = SlotPool(context, 2, model.sliding_window)
    prompt = list(vocabulary.prompt(max(PROMPT, model.sliding_window + 40)))
    completion = list(vocabulary.ordinary(context.sliding_tokens - model.sliding_window + 100, seed=6))
    converse(context, pool, sequence_of(prompt, model.vocab_size), completion)
    second = sequence_of([*prompt, *vocabulary.ordinary(30, seed=8)], model.vocab_size)
    assert pool.place(second, [])
    assert second.cached == 0


def test_a_copied_sequence_goes_on_like_its_source(context, vocabulary):
    """Copying a slot's memory gives the same logits as computing it."""
    prompt = list(vocabulary.prompt(PROMPT))
    compute(context, 0, prompt, 0)
    context.copy(0, 1)
    context.truncate(1, PROMPT - 20)
    branch = [*prompt[:-20], *vocabulary.ordinary(10, seed=9)]
    copied = compute(context, 1, branch, PROMPT - 20)
    context.truncate(0, 0)
    assert np.abs(copied - compute(context, 0, branch, 0)).max() < 0.5


def test_a_cleared_slot_holds_nothing(model, context, vocabulary):
    """After a failure a slot starts empty."""
    pool = SlotPool(context, 1, model.sliding_window)
    sequence = sequence_of(vocabulary.prompt(PROMPT), model.vocab_size)
    converse(context, pool, sequence, [5])
    slot = next(iter(pool._free))
    pool.clear(slot)
    assert slot.keys is EMPTY_KEYS
    assert context.first_position(slot.index) == -1
