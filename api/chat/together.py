"""Runs the choices of one answer side by side, so that none outlives the fault of another."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


async def run_together(work: Sequence[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """Return all results in order. The first fault cancels the rest, waits for them, and is raised.

    A single piece of work runs in the caller's own task.
    """
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
