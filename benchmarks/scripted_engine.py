"""``python -m benchmarks.scripted_engine``: an engine without a model, in a process of its own, on the product's wire.

It serves the real gRPC service. Every request gets the same ids, due at a fixed pace from its first token; as in a real
core, ids that fell due while the connection was not ready for them travel together in the next response.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats, FinishReason, Usage
from engine.server import InferenceService, create_server


class PacedCore:
    """An ``EngineCore`` that answers ``ids`` over and over, one per ``step_s`` seconds, until ``max_tokens``."""

    def __init__(self, ids: tuple[int, ...], step_s: float) -> None:
        self._ids = ids
        self._step_s = step_s
        self._requests = 0

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield all ids that are due, at least one at a time; with no pace, one at a time as fast as it goes."""
        self._requests += 1
        total, sent, start = request.max_tokens, 0, time.monotonic()
        ids = (self._ids * (total // len(self._ids) + 1))[:total]
        while sent < total:
            due = sent + 1
            if not self._step_s:
                # Gives way as a queue would: in one process with its consumer, nothing else here waits.
                await asyncio.sleep(0)
            else:
                wait = start + due * self._step_s - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                due = min(total, max(due, int((time.monotonic() - start) / self._step_s)))
            yield EngineDelta(ids[sent:due])
            sent = due
        yield EngineDelta((), (), FinishReason.LENGTH, Usage(len(request.prompt_ids), 0, total))

    async def abort(self, request_id: str) -> None:
        """Do nothing: sequences end when their iterator is closed."""

    async def health(self) -> bool:
        """Tell that it works."""
        return True

    def limits(self) -> EngineLimits:
        """Return limits that are in nobody's way."""
        return EngineLimits(
            context_tokens=1_000_000,
            max_sequences=1024,
            max_queued=1024,
            vocab_size=262_144,
            vision=False,
            grammar=True,
            logprobs=True,
            core="scripted",
            model="scripted",
        )

    def stats(self) -> EngineStats:
        """Return the number of requests, and no other counts."""
        return EngineStats(0, 0, self._requests, 0, 0, 0)

    async def close(self) -> None:
        """Do nothing."""


async def serve(endpoint: str, core: PacedCore) -> None:
    """Serve until the process is ended."""
    service = InferenceService()
    service.core = core
    server = create_server(service, endpoint)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Read the script and serve it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="gRPC address to listen at")
    parser.add_argument("--ids", type=Path, required=True, help="JSON file with the ids of the answer")
    parser.add_argument("--step-ms", type=float, default=0.0, help="time per id and sequence; 0 for no pace")
    options = parser.parse_args()
    ids = tuple(json.loads(options.ids.read_text()))
    uvloop.run(serve(options.endpoint, PacedCore(ids, options.step_ms / 1000)))


if __name__ == "__main__":
    main()
