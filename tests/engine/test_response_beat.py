"""How the engine server spaces its responses: at once for one sequence, together for many."""

from __future__ import annotations

import asyncio

import pytest

from engine.server import RESPONSES_PER_S, Beat

DEADLINE_S = 10


async def _waiting(beat: Beat, count: int) -> list[asyncio.Task[None]]:
    """Let so many tasks wait for the beat, and return when all of them do."""
    tasks = [asyncio.create_task(beat.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_a_single_sequence_never_waits():
    """Its responses leave as soon as they are there."""

    async def body():
        beat = Beat()
        beat.running = 1
        [task] = await _waiting(beat, 1)
        return task.done()

    assert asyncio.run(body())


def test_many_sequences_leave_together_and_less_often():
    """All that wait are let go by the same beat, whose length grows with their number."""

    async def body(count):
        beat = Beat()
        beat.running = count
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tasks = await _waiting(beat, count)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        took = loop.time() - begun
        await asyncio.sleep(0)
        return took, sum(task.done() for task in tasks)

    took, done = asyncio.run(body(64))
    assert done == 64
    assert took >= 64 / RESPONSES_PER_S * 0.9


def test_a_cancelled_sequence_does_not_disturb_the_others():
    """A client that leaves while it waits takes nobody with it, and the next beat comes."""

    async def body():
        beat = Beat()
        beat.running = 3
        tasks = await _waiting(beat, 3)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*tasks[1:])
            await beat.wait()

    asyncio.run(body())
