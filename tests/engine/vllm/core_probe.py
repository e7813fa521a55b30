"""Runs ``VllmCore`` in a process with vLLM and writes what it saw as JSON: ``PYTHON core_probe.py RUNTIME STEP...``.

The tests have no vLLM, so what can be seen at the core itself only, not through a server, is seen here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from config.runtime import EngineRuntime
from engine.core import EngineDelta, EngineRequest, Sampling
from engine.cores import load_core
from engine.errors import EngineError

ENDLESS = 900
PATIENCE_S = 60.0
PROMPT = (2, *range(300, 320))
Core = Any
Facts = dict[str, Any]


def request(name: str, max_tokens: int, **fields: Any) -> EngineRequest:
    """Return a greedy request that no stop id ends."""
    return EngineRequest(name, PROMPT, max_tokens, sampling=Sampling(temperature=0.0), **fields)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def last_of(deltas: Any) -> EngineDelta:
    """Read a sequence to its end."""
    return [delta async for delta in deltas][-1]


async def outcome_of(work: Awaitable[Any]) -> str:
    """Return the finish reason of a sequence, or the code of the error that it ended with."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            delta = await work
    except EngineError as error:
        return error.code
    return str(delta.finish_reason)


async def aborts(core: Core) -> Facts:
    """Abort a running sequence three times, and one whose grammar is being compiled."""
    seconds, last = [], None
    for turn in range(3):
        deltas = core.generate(request(f"victim{turn}", ENDLESS))
        await anext(deltas)
        begun = time.perf_counter()
        await core.abort(f"victim{turn}")
        last = await last_of(deltas)
        seconds.append(time.perf_counter() - begun)
        await until(lambda: (core.stats().running, core.stats().queued) == (0, 0))
    words = "|".join(f"{i:05d}x" for i in range(60000))
    early = asyncio.create_task(last_of(core.generate(request("early", 8, grammar=f"start: /{words}/"))))
    await until(lambda: core.stats().queued == 1)
    await core.abort("early")
    await core.abort("nobody")
    return {
        "seconds": min(seconds),
        "reason": str(last and last.finish_reason),
        "drawn": last.usage.completion_tokens if last and last.usage else 0,
        "early": await outcome_of(early),
    }


async def queue(core: Core) -> Facts:
    """One runs, two wait, the fourth is refused; the one of higher priority runs first."""
    first = core.generate(request("first", ENDLESS))
    await anext(first)
    order: list[str] = []

    async def wait(name: str, priority: int) -> None:
        await last_of(core.generate(request(name, 1, priority=priority)))
        order.append(name)

    waiting = [asyncio.create_task(wait(*job)) for job in (("plain", 0), ("urgent", 5))]
    await until(lambda: (core.stats().running, core.stats().queued) == (1, 2))
    fourth = await outcome_of(last_of(core.generate(request("fourth", 1))))
    await first.aclose()
    await asyncio.gather(*waiting)
    return {"order": order, "fourth": fourth}


async def close(core: Core) -> Facts:
    """Close the core under a running sequence."""
    deltas = core.generate(request("running", ENDLESS))
    await anext(deltas)
    running = asyncio.create_task(last_of(deltas))
    await core.close()
    after = await outcome_of(last_of(core.generate(request("late", 1))))
    return {"running": await outcome_of(running), "after": after, "healthy": await core.health()}


async def crash(core: Core) -> Facts:
    """Kill vLLM's engine process under a running sequence."""
    deltas = core.generate(request("running", ENDLESS))
    await anext(deltas)
    running = asyncio.create_task(last_of(deltas))
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
    reason = await outcome_of(running)
    async with asyncio.timeout(PATIENCE_S):
        while await core.health():
            await asyncio.sleep(0.05)
    return {"running": reason, "after": await outcome_of(last_of(core.generate(request("late", 1))))}


async def statistics(core: Core) -> Facts:
    """Run three sequences of one prompt at one place, and look at the counts meanwhile and afterwards."""
    before = core.stats()
    jobs = [asyncio.create_task(last_of(core.generate(request(f"counted{number}", 200)))) for number in range(3)]
    await until(lambda: (core.stats().running, core.stats().queued) == (1, 2) and core.stats().kv_tokens_used > 0)
    busy = core.stats()
    usages = [(await job).usage for job in jobs]
    after = core.stats()
    return {
        "places": busy.kv_tokens,
        "taken": [busy.kv_tokens_used, after.kv_tokens_used],
        "started": after.started_total - before.started_total,
        "queue_us": after.queue_us_total - before.queue_us_total,
        "cached": after.cached_tokens_total - before.cached_tokens_total
        == sum(usage.cached_tokens for usage in usages),
        "preemptions": after.preemptions_total,
    }


STEPS = {"statistics": statistics, "aborts": aborts, "queue": queue, "close": close, "crash": crash}


async def run(core: Core, steps: list[str]) -> Facts:
    """Take the steps one after the other."""
    facts: Facts = {}
    for step in steps:
        facts[step] = await STEPS[step](core)
    if "close" not in steps:
        await core.close()
    return facts


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runtime", type=Path)
    parser.add_argument("steps", nargs="+", choices=STEPS)
    options = parser.parse_args()
    core = load_core(EngineRuntime.model_validate_json(options.runtime.read_bytes()))
    sys.stdout.write("\n" + json.dumps(asyncio.run(run(core, options.steps))) + "\n")


if __name__ == "__main__":
    main()
