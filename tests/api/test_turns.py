"""Turns: a few go on in each round of the event loop, in order, and who is gone keeps nobody waiting."""

from __future__ import annotations

import asyncio

from api.http.turns import PER_ROUND, Turns


def test_a_few_go_on_in_each_round() -> None:
    """However many wait, no round lets more of them on than it may, and they go on in order."""

    async def scenario() -> list[int]:
        turns, order, rounds = Turns(), [], []
        tasks = [asyncio.create_task(_go(turns, number, order)) for number in range(3 * PER_ROUND)]
        while not all(task.done() for task in tasks):
            before = len(order)
            await asyncio.sleep(0)
            rounds.append(len(order) - before)
        assert order == sorted(order)
        assert len(order) == len(tasks)
        return rounds

    assert max(asyncio.run(scenario())) == PER_ROUND


async def _go(turns: Turns, number: int, order: list[int]) -> None:
    await turns.take()
    order.append(number)


def test_who_is_gone_keeps_nobody_waiting() -> None:
    """Cancelled ones give their turn to the next, and an ended loop leaves nothing behind for the one after it."""
    turns = Turns()

    async def scenario() -> None:
        gone = [asyncio.create_task(turns.take()) for _ in range(PER_ROUND)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        order: list[int] = []
        await asyncio.wait_for(_go(turns, 1, order), 60)
        assert order == [1]
        asyncio.ensure_future(turns.take())  # noqa: RUF006 - the loop ends before its turn comes

    for _ in range(2):
        asyncio.run(scenario())
