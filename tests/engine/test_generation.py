"""What every engine must do with text: ids in, deltas out. Each test runs on the core itself and through gRPC."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest

from engine.core import FinishReason, Sampling
from engine.llama_cpp.core import LlamaCppCore

PROMPT = 24


@pytest.fixture
def free_ids(run, tools, vocabulary):
    """The ids that the model draws when nothing stops it."""
    wanted = tools.request(vocabulary.prompt(PROMPT), 12)
    return run(lambda engine: tools.collect(engine, wanted)).token_ids


def test_deltas_add_up_and_only_the_last_one_ends(run, tools, vocabulary):
    """All ids arrive, in deltas of at least one id; the last one alone ends, the first tells what was cached."""
    wanted = tools.request(vocabulary.prompt(PROMPT), 40)
    result = run(lambda engine: tools.collect(engine, wanted))
    assert len(result.token_ids) == 40
    assert all(delta.token_ids for delta in result.deltas)
    assert all(delta.finish_reason is None for delta in result.deltas[:-1])
    assert all(delta.usage is None for delta in result.deltas[1:-1])
    assert result.deltas[0].usage is not None
    assert result.deltas[0].usage.prompt_tokens == PROMPT
    assert result.deltas[0].usage.cached_tokens == result.usage.cached_tokens
    assert result.finish_reason is FinishReason.LENGTH
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (PROMPT, 40)


def test_greedy_is_repeatable(run, tools, vocabulary, free_ids):
    """The same greedy request gives the same ids, with or without the prefix cache."""
    wanted = tools.request(vocabulary.prompt(PROMPT), 12, cache_salt="other")
    assert run(lambda engine: tools.collect(engine, wanted)).token_ids == free_ids


def test_a_stop_id_ends_the_sequence_and_is_reported(run, tools, vocabulary, free_ids):
    """The id that stops a sequence is the last one delivered."""
    stop = free_ids[4]
    wanted = tools.request(vocabulary.prompt(PROMPT), 12, stop_ids=(stop,))
    result = run(lambda engine: tools.collect(engine, wanted))
    assert result.token_ids == free_ids[: free_ids.index(stop) + 1]
    assert result.finish_reason is FinishReason.STOP


def test_min_tokens_postpones_stop_ids(run, tools, vocabulary, free_ids):
    """No stop id is drawn before min_tokens ids are there."""
    stops = tuple(set(free_ids))
    wanted = tools.request(vocabulary.prompt(PROMPT), 12, stop_ids=stops, min_tokens=6)
    result = run(lambda engine: tools.collect(engine, wanted))
    assert not set(result.token_ids[:6]) & set(stops)
    assert len(result.token_ids) >= 6


def test_ignored_stop_ids_are_never_drawn(run, tools, vocabulary, free_ids):
    """With ignore_stop_ids the sequence runs to its length without any of them."""
    stops = tuple(set(free_ids))
    wanted = tools.request(vocabulary.prompt(PROMPT), 12, stop_ids=stops, ignore_stop_ids=True)
    result = run(lambda engine: tools.collect(engine, wanted))
    assert not set(result.token_ids) & set(stops)
    assert result.finish_reason is FinishReason.LENGTH


def test_the_context_bounds_prompt_and_completion(run, tools, vocabulary):
    """A sequence ends with LENGTH when the context is full, whatever max_tokens says."""
    wanted = tools.request(vocabulary.prompt(2040), 100)
    result = run(lambda engine: tools.collect(engine, wanted))
    assert result.finish_reason is FinishReason.LENGTH
    assert result.usage.prompt_tokens + result.usage.completion_tokens == 2048


@pytest.mark.parametrize("top_k", [0, 5, 1500])
def test_hardly_any_temperature_is_none(run, tools, vocabulary, top_k):
    """What would divide by next to nothing draws the most likely id, and the engine goes on."""
    forced = vocabulary.ordinary(1, seed=9)[0]

    async def body(engine):
        samplings = [Sampling(temperature, top_k, logit_bias={forced: 1000.0}) for temperature in (1e-45, 1e-38, 1e-7)]
        return [await tools.collect(engine, tools.request(vocabulary.prompt(9), 4, sampling=s)) for s in samplings]

    assert [result.token_ids for result in run(body)] == [[forced] * 4] * 3


def test_a_seed_repeats_and_another_differs(run, tools, vocabulary):
    """The same seed draws the same ids; other seeds and no seed draw others."""

    async def body(engine):
        sampled = [Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=seed) for seed in (7, 7, 8, None)]
        prompt = vocabulary.prompt(PROMPT)
        return [await tools.collect(engine, tools.request(prompt, 24, sampling=s)) for s in sampled]

    first, again, other, unseeded = (result.token_ids for result in run(body))
    assert first == again
    assert len({tuple(first), tuple(other), tuple(unseeded)}) == 3


def test_a_seed_repeats_whatever_the_prefix_cache_holds(make_runtime, tools, vocabulary):
    """None, some or all of a prompt may be computed already: a seed draws the same ids."""
    prompt = vocabulary.prompt(PROMPT)
    sampling = Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=7)

    async def draws() -> dict[int, list[int]]:
        core = LlamaCppCore(make_runtime(max_sequences=1))
        found = {}
        for before in ((), (*prompt[:12], *vocabulary.ordinary(8, seed=9)), prompt):
            if before:
                await tools.collect(core, tools.request(before, 2))
            result = await tools.collect(core, tools.request(prompt, 24, sampling=sampling))
            found[result.usage.cached_tokens] = result.token_ids
        await core.close()
        return found

    found = asyncio.run(draws())
    assert set(found) == {0, 12, PROMPT - 1}
    assert found[0] == found[12] == found[PROMPT - 1]


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_k": 0, "top_p": 1e-6}, {"top_k": 0, "top_p": 1.0, "min_p": 1.0}]
)
def test_the_narrowest_filters_are_greedy(run, tools, vocabulary, free_ids, narrow):
    """top_k 1, a tiny top_p and min_p 1 each leave only the most likely id."""
    wanted = tools.request(vocabulary.prompt(PROMPT), 12, sampling=Sampling(temperature=1.0, **narrow))
    assert run(lambda engine: tools.collect(engine, wanted)).token_ids == free_ids


def test_logit_bias_forces_and_forbids(run, tools, vocabulary, free_ids):
    """A large bias decides the draw; minus infinity rules an id out."""
    forced = vocabulary.ordinary(1, seed=5)[0]
    forbidden = free_ids[0]

    async def body(engine):
        prompt = vocabulary.prompt(PROMPT)
        up = Sampling(temperature=0.0, logit_bias={forced: 1000.0})
        down = Sampling(temperature=0.0, logit_bias={forbidden: -math.inf})
        return [await tools.collect(engine, tools.request(prompt, 4, sampling=s)) for s in (up, down)]

    up, down = run(body)
    assert up.token_ids == [forced] * 4
    assert forbidden not in down.token_ids


@pytest.mark.parametrize(
    "penalty",
    [
        pytest.param({"presence_penalty": 500.0}, marks=pytest.mark.differs(vllm="takes penalties from -2 to 2")),
        pytest.param({"frequency_penalty": 500.0}, marks=pytest.mark.differs(vllm="takes penalties from -2 to 2")),
        {"repetition_penalty": 1e6},
    ],
    ids=lambda penalty: next(iter(penalty)),
)
def test_penalties_drive_out_repetition(run, tools, vocabulary, penalty):
    """A huge presence, frequency or repetition penalty lets no id come twice."""
    wanted = tools.request(vocabulary.prompt(PROMPT), 16, sampling=Sampling(temperature=0.0, **penalty))
    drawn = run(lambda engine: tools.collect(engine, wanted)).token_ids
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_the_largest_penalties_of_the_api_decide_what_is_drawn(run, tools, vocabulary, penalty):
    """Presence and frequency penalties of 2, which every core takes, lower what was drawn before by exactly that."""

    async def body(engine):
        sampling = Sampling(temperature=0.0, **{penalty: 2.0})
        prompts = [vocabulary.prompt(PROMPT, seed) for seed in range(4)]
        wanted = [tools.request(prompt, 16, sampling=sampling, logprobs=20) for prompt in prompts]
        return [await tools.collect(engine, request) for request in wanted]

    results = run(body)
    for result in results:
        drawn: Counter[int] = Counter()
        for entry in result.logprobs:
            # Among 20 ids is one not drawn yet, so the likeliest one after the penalty is among them.
            lowered = {
                token_id: logprob - 2.0 * (drawn[token_id] if penalty == "frequency_penalty" else drawn[token_id] > 0)
                for token_id, logprob in entry.top
            }
            assert lowered[entry.token_id] == pytest.approx(max(lowered.values()), abs=1e-3)
            drawn[entry.token_id] += 1
    assert any(entry.token_id != entry.top[0][0] for result in results for entry in result.logprobs)


def test_logprobs_are_raw_and_sorted(run, tools, vocabulary):
    """Log-probabilities come from the unchanged logits: bias, temperature and grammar do not touch them."""
    forced = vocabulary.ordinary(1, seed=9)[0]

    async def body(engine):
        prompt = vocabulary.prompt(PROMPT)
        plain = await tools.collect(engine, tools.request(prompt, 5, logprobs=20))
        biased = Sampling(temperature=0.3, logit_bias={forced: 1000.0})
        return plain, await tools.collect(engine, tools.request(prompt, 1, sampling=biased, logprobs=20))

    plain, biased = run(body)
    assert [entry.token_id for entry in plain.logprobs] == plain.token_ids
    for entry in plain.logprobs:
        values = [logprob for _, logprob in entry.top]
        assert len(values) == 20
        assert values == sorted(values, reverse=True)
        assert entry.top[0] == (entry.token_id, pytest.approx(entry.logprob, abs=1e-5))
        assert sum(map(math.exp, values)) <= 1.0 + 1e-5
    assert biased.logprobs[0].token_id == forced
    assert biased.logprobs[0].logprob < plain.logprobs[0].logprob
    # What the prefix cache holds decides on roundings, and these on the order of ids that are as likely as each other.
    assert [value for _, value in biased.logprobs[0].top] == pytest.approx(
        [value for _, value in plain.logprobs[0].top], abs=0.05
    )


def test_logprobs_zero_gives_the_drawn_id_only(run, tools, vocabulary):
    """Logprobs 0 asks for no rivals; None for nothing at all."""

    async def body(engine):
        prompt = vocabulary.prompt(PROMPT)
        return [await tools.collect(engine, tools.request(prompt, 3, logprobs=n)) for n in (0, None)]

    own, none = run(body)
    assert [(entry.token_id, entry.top) for entry in own.logprobs] == [(i, ()) for i in own.token_ids]
    assert none.logprobs == []


def test_thirty_two_sequences_do_not_mix(run, tools, vocabulary):
    """Sequences that run together give what each gives alone."""

    async def body(engine):
        wanted = [
            tools.request(vocabulary.prompt(PROMPT + i, seed=i), 24, logprobs=0, cache_salt=f"a{i}") for i in range(32)
        ]
        together = await asyncio.gather(*(tools.collect(engine, one) for one in wanted))
        again = [tools.request(one.prompt_ids, 24, logprobs=0, cache_salt=f"b{one.request_id}") for one in wanted[:8]]
        return together, [await tools.collect(engine, one) for one in again]

    together, alone = run(body)
    assert all(len(result.token_ids) == 24 for result in together)
    for joint, single in zip(together, alone, strict=False):
        # Batches of another shape round differently; an almost even choice may then fall the other way, once.
        same = next((i for i, (a, b) in enumerate(zip(joint.token_ids, single.token_ids, strict=True)) if a != b), 24)
        for a, b in zip(joint.logprobs[:same], single.logprobs[:same], strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=0.3)
        assert same >= 1
    assert sum(joint.token_ids == single.token_ids for joint, single in zip(together, alone, strict=False)) >= 6


@pytest.mark.differs(tensorrt_llm="has no block reuse for Gemma 4")
def test_the_prefix_cache_saves_all_but_one_token(run, tools, vocabulary, cache_block):
    """The same prompt again computes one token; a longer one continues; another salt shares nothing."""

    async def body(engine):
        prompt = vocabulary.prompt(200, seed=3)
        first = await tools.collect(engine, tools.request(prompt, 8, cache_salt="s"))
        again = await tools.collect(engine, tools.request(prompt, 8, cache_salt="s"))
        longer = (*prompt, *again.token_ids, *vocabulary.ordinary(5, seed=4))
        next_turn = await tools.collect(engine, tools.request(longer, 8, cache_salt="s"))
        stranger = await tools.collect(engine, tools.request(prompt, 8, cache_salt="t"))
        return first, again, next_turn, stranger

    first, again, next_turn, stranger = run(body)
    assert first.usage.cached_tokens == stranger.usage.cached_tokens == 0
    assert again.usage.cached_tokens == 199 // cache_block * cache_block
    # The last id drawn was never computed.
    assert next_turn.usage.cached_tokens == (200 + 8 - 1) // cache_block * cache_block
    assert first.token_ids == again.token_ids == stranger.token_ids


@pytest.mark.differs(tensorrt_llm="has no block reuse for Gemma 4")
def test_sequences_share_a_long_prefix_that_is_being_computed(run, tools, vocabulary, cache_block):
    """Requests that arrive together with the same long start compute it once, and give what each gives alone."""
    shared = vocabulary.prompt(600, seed=21)

    async def body(engine):
        prompts = [(*shared, *vocabulary.ordinary(6, seed=50 + i)) for i in range(4)]
        together = [tools.request(ids, 6, logprobs=0, cache_salt="together") for ids in prompts]
        joint = await asyncio.gather(*(tools.collect(engine, one) for one in together))
        alone = [tools.request(ids, 6, logprobs=0, cache_salt=f"alone{i}") for i, ids in enumerate(prompts)]
        return joint, [await tools.collect(engine, one) for one in alone]

    joint, alone = run(body)
    cached = 600 // cache_block * cache_block
    assert sorted(result.usage.cached_tokens for result in joint) == [0, cached, cached, cached]
    for one, other in zip(joint, alone, strict=True):
        assert other.usage.cached_tokens == 0
        assert one.logprobs[0].logprob == pytest.approx(other.logprobs[0].logprob, abs=0.3)
    assert sum(a.token_ids == b.token_ids for a, b in zip(joint, alone, strict=True)) >= 3
