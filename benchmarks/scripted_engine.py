"""``python -m benchmarks.scripted_engine``: an engine without a model, in a process of its own, on the product's wire.

It serves the real gRPC service. It steps as an engine with continuous batching does: every step draws one id for each
sequence that runs, and hands all of them over at once. Every request gets the same ids.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from engine.core import (
    EngineDelta,
    EngineLimits,
    EngineRequest,
    EngineStats,
    FinishReason,
    Receiver,
    Usage,
    join_deltas,
)
from engine.server import InferenceService, create_server
from engine.triton.mailbox import Mailbox


class Sequence:
    """One running sequence."""

    def __init__(self, core: SteppedCore, request: EngineRequest, receiver: Receiver) -> None:
        self.request = request
        self.receiver = receiver
        self.drawn = 0
        self._core = core

    def close(self) -> None:
        """Take part in no further step."""
        self._core.running.pop(self, None)


class SteppedCore:
    """An ``EngineCore`` that draws ``ids`` over and over, one per step and sequence, until ``max_tokens``.

    A step that comes late, because the process was busy, moves the later ones: no step draws two ids of a sequence.
    """

    def __init__(self, ids: tuple[int, ...], step_s: float) -> None:
        self._ids = ids
        self._step_s = step_s
        self._requests = 0
        self._next_at = 0.0
        self._is_stepping = False
        self.running: dict[Sequence, None] = {}

    async def start(self, request: EngineRequest, receiver: Receiver) -> Sequence:
        """Start a sequence; the receiver is called from the step itself."""
        self._requests += 1
        sequence = Sequence(self, request, receiver)
        self.running[sequence] = None
        if not self._is_stepping:
            self._is_stepping = True
            self._plan(asyncio.get_running_loop().time())
        return sequence

    def _plan(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        self._next_at = max(loop.time(), due + self._step_s)
        loop.call_at(self._next_at, self._step)

    def _step(self) -> None:
        """Draw one id for each sequence."""
        for sequence in tuple(self.running):
            token_ids = (self._ids[sequence.drawn % len(self._ids)],)
            sequence.drawn += 1
            total = sequence.request.max_tokens
            if sequence.drawn < total:
                sequence.receiver.ids(token_ids)
            else:
                usage = Usage(len(sequence.request.prompt_ids), 0, total)
                sequence.close()
                sequence.receiver.delta(EngineDelta(token_ids, (), FinishReason.LENGTH, usage))
        self._is_stepping = bool(self.running)
        if self._is_stepping:
            self._plan(self._next_at)

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield what was drawn; ids that were drawn while the consumer was busy come together, as from a real core."""
        mailbox = Mailbox()
        sequence = await self.start(request, mailbox)
        try:
            while True:
                delta = join_deltas([await mailbox.take(), *mailbox.take_rest()])
                yield delta
                if delta.finish_reason is not None:
                    return
        finally:
            sequence.close()

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


async def serve(endpoint: str, core: SteppedCore) -> None:
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
    parser.add_argument("--step-ms", type=float, required=True, help="time of one step")
    options = parser.parse_args()
    ids = tuple(json.loads(options.ids.read_text()))
    uvloop.run(serve(options.endpoint, SteppedCore(ids, options.step_ms / 1000)))


if __name__ == "__main__":
    main()
