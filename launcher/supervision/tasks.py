"""Waiting for whichever of several coroutines comes first, and ending the others for certain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final

logger = logging.getLogger(__name__)

CANCEL_AGAIN_S: Final = 0.5


async def first_of(*work: Coroutine[Any, Any, Any]) -> None:
    """Run all until one is done, then end the others; what the first one raises is raised.

    Of several that are done at the same moment, the failure of the one that was named first counts.
    """
    tasks = [asyncio.create_task(item) for item in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await cancel(tasks)


async def until(
    end: Coroutine[Any, Any, Any], condition: Coroutine[Any, Any, None], beside: Coroutine[Any, Any, None] | None = None
) -> None:
    """Wait for a condition or for an end, whichever comes first, with something else running meanwhile."""
    tasks = [asyncio.create_task(condition), asyncio.create_task(end)]
    others = [] if beside is None else [asyncio.create_task(beside)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await cancel([*tasks, *others])


async def cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """End tasks, whatever they return or raise; being cancelled oneself meanwhile is not swallowed.

    A task may lose a cancellation that comes just when what it waits for is done, so it is repeated until
    all have ended.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("ended with %r", error)
