"""One request on its way through the batcher: what is computed, what was drawn, what its consumer still has to get."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engine.core import EngineDelta, EngineRequest, FinishReason, TokenLogprob, Usage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from engine.errors import EngineError
    from engine.grammar import GrammarState
    from engine.images import ImageRun
    from engine.llama_cpp.prefix_cache import Prompt, Slot
    from engine.llama_cpp.sampling import SequenceSampler


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step gave a sequence: an id, the end, both, or an error."""

    token_id: int | None = None
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: EngineError | None = None


class Mailbox:
    """Carries outcomes to the consumer within the event loop. Outcomes that wait are handed over together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Outcome] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def put(self, outcome: Outcome) -> None:
        """Add an outcome; nothing is taken after the one that ends the sequence."""
        if self._closed:
            return
        self._closed = outcome.finish_reason is not None or outcome.error is not None
        self._waiting.append(outcome)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def arrival(self) -> None:
        """Wait until an outcome is there; one task may wait at a time."""
        if not self._waiting:
            self._waiter = self._loop.create_future()
            await self._waiter
            self._waiter = None

    async def take(self) -> EngineDelta:
        """Wait for at least one outcome and return all that are ready as one delta.

        Raises:
            EngineError: the sequence failed, and nothing precedes the failure.
        """
        await self.arrival()
        first = self._waiting[0]
        if first.error is not None:
            raise first.error
        ready = []
        while self._waiting and self._waiting[0].error is None:
            ready.append(self._waiting.popleft())
        return merge(ready)


def merge(outcomes: Iterable[Outcome]) -> EngineDelta:
    """Return one delta for consecutive outcomes without errors."""
    token_ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    for outcome in outcomes:
        if outcome.token_id is not None:
            token_ids.append(outcome.token_id)
        if outcome.logprob is not None:
            logprobs.append(outcome.logprob)
        finish_reason = outcome.finish_reason or finish_reason
        usage = outcome.usage or usage
    return EngineDelta(tuple(token_ids), tuple(logprobs), finish_reason, usage)


@dataclass(slots=True, eq=False)
class Sequence:
    """A request with everything prepared for the step thread, and its progress there."""

    request: EngineRequest
    prompt: Prompt
    embeddings: tuple[NDArray[np.float32], ...]
    sampler: SequenceSampler
    grammar: GrammarState | None
    mailbox: Mailbox
    slot: Slot | None = None
    position: int = 0
    """Places whose memory is computed."""
    checkpoint_at: int | None = None
    """Place where the prompt's computation pauses for a checkpoint of the sliding layers."""
    cached: int = 0
    """Of these, places found in the prefix cache."""
    drawn: list[int] = field(default_factory=list)
    queued_at: float = 0.0
    """Moment of ``time.perf_counter`` at which it began to wait for a slot."""
    is_aborted: bool = False
    """Set by the event loop, honoured by the step thread between two steps."""

    @property
    def held_slot(self) -> Slot:
        """The slot; only a running sequence has one."""
        if self.slot is None:
            message = "a sequence without a slot was scheduled"
            raise RuntimeError(message)
        return self.slot

    def computed_keys(self) -> NDArray[np.int64]:
        """Return the keys of all places whose memory is computed."""
        keys = np.concatenate((self.prompt.keys, np.array(self.drawn, dtype=np.int64)))
        return keys[: self.position]

    @property
    def prompt_length(self) -> int:
        """Number of places in the prompt."""
        return len(self.request.prompt_ids)

    @property
    def is_prefilling(self) -> bool:
        """Whether some of the prompt is still to be computed."""
        return self.position < self.prompt_length

    def next_image(self) -> tuple[ImageRun, NDArray[np.float32]] | None:
        """Return the image that starts at the current position, with its embeddings."""
        for run, embeddings in zip(self.prompt.runs, self.embeddings, strict=True):
            if run.start == self.position:
                return run, embeddings
        return None

    def next_text(self, limit: int) -> tuple[int, ...]:
        """Return the prompt ids to compute next: at most ``limit``, up to the next image.

        The last id of a seeded request is computed on its own, as it is when all before it are in the prefix cache:
        one id and several at once go through different kernels, whose roundings are enough to draw another id.
        """
        end = min(self.prompt_length, self.position + limit)
        if self.request.sampling.seed is not None and self.position < self.prompt_length - 1:
            end = min(end, self.prompt_length - 1)
        if self.checkpoint_at is not None and self.position < self.checkpoint_at:
            end = min(end, self.checkpoint_at)
        for run in self.prompt.runs:
            if run.start > self.position:
                end = min(end, run.start)
                break
        return self.request.prompt_ids[self.position : end]

    def usage(self) -> Usage:
        """Return the token counts so far."""
        return Usage(self.prompt_length, self.cached, len(self.drawn))
