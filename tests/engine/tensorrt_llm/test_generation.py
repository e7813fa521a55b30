"""The engine protocol on the TensorRT-LLM core: ids in, deltas out, as every core must do it."""

from __future__ import annotations

import asyncio
import math
import re

import pytest

from engine.core import FinishReason, Sampling

HOT = Sampling(temperature=3.0, top_k=0, top_p=1.0, seed=11)


async def free_ids(core, tools, prompt, count=12):
    return (await tools.collect(core, tools.request(prompt(24), count))).token_ids


def test_deltas_add_up_and_only_the_last_one_ends(run, tools, prompt):
    """All ids arrive; the first delta tells what was cached, the last alone ends."""
    result = run(lambda core, _: tools.collect(core, tools.request(prompt(24), 40)))
    assert len(result.token_ids) == 40
    assert all(delta.token_ids for delta in result.deltas)
    assert all(delta.finish_reason is None for delta in result.deltas[:-1])
    assert result.deltas[0].usage is not None
    assert all(delta.usage is None for delta in result.deltas[1:-1])
    assert result.finish_reason is FinishReason.LENGTH
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (24, 40)


@pytest.mark.parametrize("burst", [3, 7])
def test_several_ids_in_one_response_are_all_new(run, tools, prompt, burst):
    """The library's outputs grow; only what is new is passed on, whatever the size of a step."""

    async def body(core, engine):
        one = await tools.collect(core, tools.request(prompt(24), 20))
        engine.burst = burst
        return one, await tools.collect(core, tools.request(prompt(24), 20, logprobs=1))

    one, several = run(body)
    assert several.token_ids == one.token_ids
    assert [entry.token_id for entry in several.logprobs] == one.token_ids
    assert len(several.deltas) <= 20 // burst + 1


def test_a_stop_id_ends_the_sequence_and_is_reported(run, tools, prompt):
    """The id that stops a sequence is the last one delivered, and no id after it of the same response."""

    async def body(core, engine):
        free = await free_ids(core, tools, prompt)
        end = next(i for i in range(3, 12) if free[i] not in free[:i] and i % 3 < 2)
        engine.burst = 3
        return free[: end + 1], await tools.collect(core, tools.request(prompt(24), 12, stop_ids=(free[end],)))

    wanted, stopped = run(body)
    assert stopped.token_ids == wanted
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.usage.completion_tokens == len(wanted)


def test_min_tokens_postpones_every_stop_id(run, tools, prompt):
    """No stop id is drawn before min_tokens ids are there, and one may come right after."""

    async def body(core, _):
        stops = tuple(set(await free_ids(core, tools, prompt)))
        pushed = Sampling(temperature=0.0, logit_bias=dict.fromkeys(stops, 500.0))
        wanted = tools.request(prompt(24), 12, stop_ids=stops, min_tokens=6, sampling=pushed)
        return stops, await tools.collect(core, wanted)

    stops, result = run(body)
    assert not set(result.token_ids[:6]) & set(stops)
    assert result.token_ids[6] in stops
    assert len(result.token_ids) == 7


def test_ignored_stop_ids_are_never_drawn(run, tools, prompt):
    """With ignore_stop_ids the sequence runs to its length without any of them."""

    async def body(core, _):
        stops = tuple(set(await free_ids(core, tools, prompt)))
        return stops, await tools.collect(core, tools.request(prompt(24), 12, stop_ids=stops, ignore_stop_ids=True))

    stops, result = run(body)
    assert not set(result.token_ids) & set(stops)
    assert result.finish_reason is FinishReason.LENGTH


def test_the_context_bounds_prompt_and_completion(run, tools, prompt):
    """A sequence ends with LENGTH when the context is full, whatever max_tokens says."""
    result = run(lambda core, _: tools.collect(core, tools.request(prompt(500), 100)))
    assert result.finish_reason is FinishReason.LENGTH
    assert result.usage.prompt_tokens + result.usage.completion_tokens == 512


def test_a_seed_repeats_and_none_is_fresh(run, tools, prompt):
    """The same seed draws the same ids; other seeds, and none twice, draw others."""

    async def body(core, _):
        samplings = [Sampling(temperature=4.0, top_k=0, top_p=1.0, seed=seed) for seed in (7, 7, 8, None, None)]
        return [(await tools.collect(core, tools.request(prompt(24), 24, sampling=s))).token_ids for s in samplings]

    first, again, *others = run(body)
    assert first == again
    assert len({tuple(found) for found in (first, *others)}) == 4


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_k": 0, "top_p": 1e-6}, {"top_k": 0, "top_p": 1.0, "min_p": 1.0}]
)
def test_the_narrowest_filters_are_greedy(run, tools, prompt, narrow):
    """top_k 1, a tiny top_p and min_p 1 each leave only the most likely id."""

    async def body(core, _):
        wanted = tools.request(prompt(24), 12, sampling=Sampling(temperature=1.0, **narrow))
        return await free_ids(core, tools, prompt), (await tools.collect(core, wanted)).token_ids

    free, narrowed = run(body)
    assert narrowed == free


def test_logit_bias_forces_and_forbids(run, tools, prompt):
    """A large bias decides the draw; minus infinity rules an id out."""

    async def body(core, _):
        free = await free_ids(core, tools, prompt)
        up = Sampling(temperature=0.0, logit_bias={5: 1000.0})
        down = Sampling(temperature=0.0, logit_bias={free[0]: -math.inf})
        return free[0], [await tools.collect(core, tools.request(prompt(24), 4, sampling=s)) for s in (up, down)]

    forbidden, (up, down) = run(body)
    assert up.token_ids == [5] * 4
    assert forbidden not in down.token_ids


@pytest.mark.parametrize(
    "penalty", [{"presence_penalty": 500.0}, {"frequency_penalty": 500.0}, {"repetition_penalty": 1e6}]
)
def test_penalties_drive_out_repetition(run, tools, prompt, penalty):
    """A huge penalty lets no drawn id come twice; only repetition counts the prompt."""

    async def body(core, _):
        pushed = Sampling(temperature=0.0, logit_bias={prompt(24)[5]: 100.0}, **penalty)
        return (await tools.collect(core, tools.request(prompt(24), 16, sampling=pushed))).token_ids

    drawn = run(body)
    assert len(set(drawn)) == 16
    assert (prompt(24)[5] in drawn) == ("repetition_penalty" not in penalty)


def test_logprobs_are_sorted_and_hold_the_drawn_id(run, tools, prompt):
    """The n most likely ids in order, and the drawn id's own value even when it is not among them."""

    async def body(core, _):
        biased = Sampling(temperature=0.0, logit_bias={5: 1000.0})
        return [
            await tools.collect(core, tools.request(prompt(24), 3, logprobs=n, sampling=s))
            for n, s in ((4, Sampling(temperature=0.0)), (4, biased), (0, biased), (None, biased))
        ]

    plain, biased, own, none = run(body)
    assert [entry.token_id for entry in plain.logprobs] == plain.token_ids
    for entry in (*plain.logprobs, *biased.logprobs):
        values = [logprob for _, logprob in entry.top]
        assert len(values) == 4
        assert values == sorted(values, reverse=True)
    assert plain.logprobs[0].top[0] == (plain.token_ids[0], plain.logprobs[0].logprob)
    assert biased.logprobs[0].logprob < biased.logprobs[0].top[-1][1]
    assert [(entry.token_id, entry.top) for entry in own.logprobs] == [(5, ())] * 3
    assert none.logprobs == []


def test_sequences_do_not_mix(run, tools, prompt):
    """Sixty-four sequences that come together give what each gives alone."""

    async def body(core, _):
        wanted = [tools.request(prompt(20 + i % 8, seed=i), 12) for i in range(64)]
        together = await asyncio.gather(*(tools.collect(core, one) for one in wanted))
        return together, [await tools.collect(core, tools.request(one.prompt_ids, 12)) for one in wanted[:8]]

    together, alone = run(body, max_queued=64)
    assert [result.token_ids for result in together[:8]] == [result.token_ids for result in alone]


def spell(ids, found):
    names = {token_id: text for text, token_id in ids.items()}
    return "".join(re.sub("^<0x(..)>$", lambda byte: chr(int(byte[1], 16)), names[token_id]) for token_id in found)


@pytest.mark.parametrize("burst", [1, 4])
def test_a_grammar_holds_and_its_end_is_a_stop(run, tools, prompt, ids, burst):
    """Only what the grammar allows is drawn; its end adds no stop id, with and without stop ids in the request."""

    async def body(core, engine):
        engine.burst = burst
        fields = {"grammar": "start: /[0-9]{6}/", "sampling": HOT}
        plain = await tools.collect(core, tools.request(prompt(10), 40, **fields))
        stops = await tools.collect(core, tools.request(prompt(10), 40, stop_ids=(ids["<turn|>"],), **fields))
        ignored = {"stop_ids": (ids["<turn|>"], ids["<eos>"]), "ignore_stop_ids": True}
        return plain, stops, await tools.collect(core, tools.request(prompt(10), 40, **ignored, **fields))

    for result in run(body):
        assert re.fullmatch("[0-9]{6}", spell(ids, result.token_ids))
        assert result.finish_reason is FinishReason.STOP


def test_a_stop_id_may_follow_where_the_grammar_may_end(run, tools, prompt, ids):
    """Any of the request's stop ids, not only the tokenizer's own, and only where the grammar accepts."""
    stop = ids["<turn|>"]
    pushed = Sampling(temperature=0.0, logit_bias={stop: 1000.0})
    fields = {"stop_ids": (ids["<|tool_response>"], stop), "sampling": pushed}
    wanted = tools.request(prompt(10), 30, grammar="start: /[0-9]{3,8}/", **fields)
    result = run(lambda core, _: tools.collect(core, wanted))
    assert result.token_ids[-1] == stop
    assert len(result.token_ids) == 4
    assert result.finish_reason is FinishReason.STOP


def test_special_tokens_are_addressed_by_id(run, tools, prompt, ids):
    """A special token stands in a grammar as its id; text never becomes one."""
    begin, end = ids["<|tool_call>"], ids["<tool_call|>"]
    grammar = f'start: <[{begin}]> "call:a" <[{end}]>'
    wanted = tools.request(prompt(10), 40, grammar=grammar, stop_ids=(ids["<turn|>"],))
    result = run(lambda core, _: tools.collect(core, wanted))
    assert (result.token_ids[0], result.token_ids[-1]) == (begin, end)
    assert spell(ids, result.token_ids[1:-1]) == "call:a"
