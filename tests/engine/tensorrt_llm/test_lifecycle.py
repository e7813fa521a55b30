"""Aborts, the queue, and what becomes of sequences when the library fails."""

from __future__ import annotations

import asyncio

import pytest

from engine.core import FinishReason
from engine.errors import (
    EngineError,
    EngineUnavailableError,
    InvalidGrammarError,
    InvalidRequestError,
    QueueFullError,
)


async def started(core, wanted):
    deltas = core.generate(wanted)
    await anext(deltas)
    return deltas


def counts(core):
    stats = core.stats()
    return stats.running, stats.queued


async def idle(core, tools):
    async def check():
        return counts(core) == (0, 0)

    await tools.wait_until(check, 100)


def test_abort_ends_the_sequence_before_the_library_has(run, tools, prompt):
    """The consumer gets ABORT with its usage before the library has answered; the place is free only after that."""

    async def body(core, engine):
        engine.held_after, engine.ends_aborted = 2, False
        deltas = await started(core, tools.request(prompt(8), 200, request_id="victim"))
        await core.abort("victim")
        last = [delta async for delta in deltas][-1]
        assert counts(core) == (1, 0)
        assert engine.aborts == 1
        engine.ends_aborted = True
        engine.wake()
        await idle(core, tools)
        return last

    last = run(body)
    assert last.finish_reason is FinishReason.ABORT
    assert 1 <= last.usage.completion_tokens <= 2


def test_a_consumer_that_goes_away_aborts(run, tools, prompt):
    """Closing the iterator, and cancelling the task that reads, end the sequence in the library."""

    async def body(core, engine):
        engine.held_after = 2
        deltas = await started(core, tools.request(prompt(8), 200))
        await deltas.aclose()
        await idle(core, tools)
        task = asyncio.create_task(tools.collect(core, tools.request(prompt(8), 200)))
        await tools.wait_until(lambda: _runs(core), 100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(core, tools)
        return engine.aborts, len(engine.running)

    assert run(body) == (2, 0)


def test_a_consumer_that_goes_away_at_once_leaves_nothing(run, tools, prompt):
    """A request that is cancelled before anything was done for it is forgotten, and no place is lost."""

    async def body(core, _):
        for steps in range(4):
            task = asyncio.create_task(tools.collect(core, tools.request(prompt(8), 200)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await idle(core, tools)
        return (await tools.collect(core, tools.request(prompt(8), 2))).token_ids

    assert len(run(body, max_sequences=1, max_queued=0)) == 2


async def _runs(core):
    return counts(core) == (1, 0)


def test_a_place_is_free_only_after_the_librarys_last_response(run, tools, prompt):
    """Whoever waits starts when the library has let go of the aborted sequence, never before."""

    async def body(core, engine):
        engine.held_after = 2
        first = await started(core, tools.request(prompt(8), 200, request_id="first"))
        second = asyncio.create_task(tools.collect(core, tools.request(prompt(9), 2)))
        await tools.wait_until(lambda: _waits(core), 100)
        assert len(engine.requests) == 1
        await first.aclose()
        return await second

    assert len(run(body, max_sequences=1).token_ids) == 2


async def _waits(core):
    return counts(core) == (1, 1)


def test_an_abort_while_waiting_or_preparing(run, tools, prompt):
    """Requests that the library has not seen end with ABORT and no ids."""
    words = "|".join(f"{i:05d}x" for i in range(60000))

    async def body(core, engine):
        engine.held_after = 1
        first = await started(core, tools.request(prompt(8), 200))
        waiting = [
            tools.request(prompt(8), 8, request_id="early"),
            tools.request(prompt(8), 8, request_id="early", grammar=f"start: /{words}/"),
        ]
        tasks = [asyncio.create_task(tools.collect(core, one)) for one in waiting]
        await tools.wait_until(lambda: _waiting(core, 2), 100)
        await core.abort("early")
        await core.abort("nobody")
        results = await asyncio.gather(*tasks)
        await first.aclose()
        await idle(core, tools)
        return results, len(engine.requests)

    results, submitted = run(body, max_sequences=1)
    assert [(result.finish_reason, result.token_ids) for result in results] == [(FinishReason.ABORT, [])] * 2
    assert submitted == 1


async def _waiting(core, count):
    return counts(core) == (1, count)


def test_the_queue_has_a_limit_and_an_order(run, tools, prompt):
    """One runs, two wait, the fourth is refused before the library has it; the higher priority runs first."""

    async def body(core, engine):
        engine.held_after = 1
        first = await started(core, tools.request(prompt(8), 200))
        order = []

        async def wait(name, priority):
            await tools.collect(core, tools.request(prompt(8), 1, priority=priority))
            order.append(name)

        waiting = [asyncio.create_task(wait(*job)) for job in (("plain", 0), ("urgent", 5))]
        await tools.wait_until(lambda: _waiting(core, 2), 100)
        with pytest.raises(QueueFullError):
            await tools.collect(core, tools.request(prompt(8), 1))
        engine.release()
        await first.aclose()
        await asyncio.gather(*waiting)
        return order

    assert run(body, max_sequences=1, max_queued=2) == ["urgent", "plain"]


def test_a_lost_library_ends_everything(run, tools, prompt):
    """When the workers die, running and waiting sequences fail, health is false, and nothing more is taken."""

    async def body(core, engine):
        engine.held_after = 1
        first = await started(core, tools.request(prompt(8), 200))
        waiting = asyncio.create_task(tools.collect(core, tools.request(prompt(8), 1)))
        await tools.wait_until(lambda: _waits(core), 100)
        assert await core.health()
        engine.die()
        with pytest.raises(EngineUnavailableError, match=r"Executor worker died$"):
            _ = [delta async for delta in first]
        with pytest.raises(EngineUnavailableError):
            await waiting
        await idle(core, tools)
        assert not await core.health()
        with pytest.raises(EngineUnavailableError, match=r"Executor worker died$"):
            await tools.collect(core, tools.request(prompt(8), 1))

    run(body, max_sequences=1)


async def _hangs(engine):
    return len(engine.blocked) == 1


def test_a_health_check_alone_finds_a_hanging_sequence(run, tools, prompt):
    """A library that dies without a word to a sequence is noticed by health(), which fails the sequence."""

    async def body(core, engine):
        engine.held_after = 1
        first = await started(core, tools.request(prompt(8), 200))
        await tools.wait_until(lambda: _hangs(engine), 100)
        engine.is_dead = True
        assert not await core.health()
        with pytest.raises(EngineUnavailableError):
            _ = [delta async for delta in first]

    run(body)


def test_closing_ends_sequences(run, tools, prompt):
    """close() ends running sequences with ABORT; afterwards nothing is accepted and health is false."""

    async def body(core, engine):
        engine.held_after = 1
        deltas = await started(core, tools.request(prompt(8), 200))
        await core.close()
        last = [delta async for delta in deltas][-1]
        assert not await core.health()
        with pytest.raises(EngineUnavailableError):
            await tools.collect(core, tools.request(prompt(8), 1))
        return last.finish_reason

    assert run(body) is FinishReason.ABORT


@pytest.mark.parametrize(
    "case",
    [
        ("raised", "Guided decoding error: too many items", InvalidGrammarError, "too complex"),
        ("raised", "out of KV blocks\ntrace", EngineError, "out of KV blocks"),
        ("reported", "out of KV blocks\ntrace", EngineError, "out of KV blocks"),
    ],
)
def test_a_failed_response_fails_its_sequence_only(library, run, tools, prompt, case):
    """The library's error for one request is translated once; the engine serves the next."""
    way, failure, expected, text = case

    async def body(core, engine):
        engine.held_after = 2
        deltas = await started(core, tools.request(prompt(8), 8))
        engine.failures.append(library.api.RequestError(failure) if way == "raised" else failure)
        engine.release()
        with pytest.raises(EngineError, match=text) as caught:
            _ = [delta async for delta in deltas]
        assert type(caught.value) is expected
        assert "trace" not in caught.value.message
        assert await core.health()
        return await tools.collect(core, tools.request(prompt(8), 2))

    assert len(run(body).token_ids) == 2


def test_an_odd_failure_of_a_healthy_library_is_one_sequences(run, tools, prompt):
    """An error of another kind is not taken for the end while the library says that it is well."""

    async def body(core, engine):
        engine.failures.append(AssertionError("lengths differ"))
        with pytest.raises(EngineUnavailableError, match="lengths differ"):
            await tools.collect(core, tools.request(prompt(8), 8))
        await idle(core, tools)
        return await tools.collect(core, tools.request(prompt(8), 2))

    assert len(run(body).token_ids) == 2


@pytest.mark.parametrize("kind", ["RequestError", "ValueError", "TypeError", "NotImplementedError"])
def test_a_refusal_at_submission_is_the_requests_fault(library, run, tools, prompt, kind):
    """What the library raises before it has taken a request is an invalid request, not a lost engine."""
    errors = {"RequestError": library.api.RequestError, "ValueError": ValueError, "TypeError": TypeError}

    async def body(core, engine):
        engine.refusals.append(errors.get(kind, NotImplementedError)("no such thing"))
        with pytest.raises(InvalidRequestError, match="no such thing"):
            await tools.collect(core, tools.request(prompt(8), 8))
        return await tools.collect(core, tools.request(prompt(8), 2))

    assert len(run(body).token_ids) == 2


def test_the_cache_is_watched_while_something_runs(run, tools, prompt):
    """Places and used places come from the library's own words; nothing is used when nothing runs."""

    async def body(core, engine):
        assert core.stats().kv_tokens is None
        engine.held_after = 4
        running = asyncio.create_task(tools.collect(core, tools.request(prompt(40), 8)))
        async with asyncio.timeout(60):
            while core.stats().kv_tokens_used is None:
                await asyncio.sleep(0.01)
        busy = core.stats()
        engine.release()
        await running
        await idle(core, tools)
        return busy, core.stats()

    busy, after = run(body)
    assert (busy.kv_tokens, busy.kv_tokens_used) == (100 * 32, 2 * 32)
    assert (after.kv_tokens, after.kv_tokens_used) == (100 * 32, 0)


def test_waiting_and_compiling_are_timed(run, tools, prompt):
    """Each sequence that got its place counts, and each grammar."""

    async def body(core, _):
        await tools.collect(core, tools.request(prompt(8), 2))
        await tools.collect(core, tools.request(prompt(8), 2, grammar="start: /[a-z]+/"))
        await idle(core, tools)
        return core.stats()

    stats = run(body)
    assert (stats.started_total, stats.grammars_total) == (2, 1)
    assert stats.grammar_us_total > 0


def test_a_library_that_does_not_tell_harms_nobody(run, tools, prompt):
    """Without words of the cache, sequences run as ever, and the cache is unknown."""

    async def body(core, engine):
        engine.get_stats_async = None
        result = await tools.collect(core, tools.request(prompt(8), 2))
        await idle(core, tools)
        return result, core.stats()

    result, stats = run(body)
    assert len(result.token_ids) == 2
    assert stats.kv_tokens_used is None


def test_totals_are_counted(run, tools, prompt):
    """stats() adds up prompts and drawn ids of sequences that ended."""

    async def body(core, _):
        for count in (3, 4):
            await tools.collect(core, tools.request(prompt(10), count))
        await idle(core, tools)
        return core.stats()

    stats = run(body)
    assert (stats.requests_total, stats.prompt_tokens_total, stats.completion_tokens_total) == (2, 20, 7)
