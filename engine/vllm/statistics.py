"""What the vLLM core tells of itself: its own counts, and what vLLM's scheduler says with every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from engine.core import EngineStats
from engine.spent import Spent

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.vllm.following import Following


@dataclass(slots=True)
class Observed:
    """What vLLM's scheduler said last; without a step nothing new is heard."""

    waiting: int = 0
    """Sequences that have no place in the step, those among them that had one and lost it."""
    cache_usage: float = 0.0
    """Share of the blocks of the KV cache that sequences hold, 0 to 1."""
    preemptions: int = 0
    """How often a sequence had to give up its blocks, since the start."""


class Counted(Protocol):
    """A sequence; ``name`` is empty until vLLM has it."""

    name: str
    following: Following


@dataclass(slots=True)
class Statistics:
    """Belongs to the core's event loop."""

    max_sequences: int
    observed: Observed = field(default_factory=Observed)
    cache_tokens: int | None = None
    requests: int = 0
    compiling: Spent = field(default_factory=Spent)
    queued: Spent = field(default_factory=Spent)
    """Waiting in vLLM, of the sequences of which something was heard."""
    _prompt: int = 0
    _cached: int = 0
    _completion: int = 0

    def add(self, sequence: Counted) -> None:
        """Count a sequence that has ended."""
        if sequence.name:
            usage = sequence.following.usage()
            self._prompt += usage.prompt_tokens
            self._cached += usage.cached_tokens
            self._completion += usage.completion_tokens

    def report(self, sequences: Collection[Counted]) -> EngineStats:
        """Return counters and gauges, with the sequences that have not ended."""
        handed = [sequence for sequence in sequences if sequence.name]
        # What the scheduler said may be of a moment ago: a sequence that draws is not waiting, whatever it said.
        silent = sum(sequence.following.drawn == 0 for sequence in handed)
        running = len(handed) - max(len(handed) - self.max_sequences, min(silent, self.observed.waiting))
        return EngineStats(
            running=running,
            queued=len(sequences) - running,
            requests_total=self.requests,
            prompt_tokens_total=self._prompt,
            cached_tokens_total=self._cached,
            completion_tokens_total=self._completion + sum(sequence.following.drawn for sequence in handed),
            kv_tokens=self.cache_tokens,
            kv_tokens_used=self._cache_tokens_used(is_busy=bool(handed)),
            started_total=self.queued.count,
            queue_us_total=self.queued.microseconds,
            grammars_total=self.compiling.count,
            grammar_us_total=self.compiling.microseconds,
            preemptions_total=self.observed.preemptions,
        )

    def _cache_tokens_used(self, *, is_busy: bool) -> int | None:
        """Return a share of the places: a block is of one kind of layer, so blocks cannot be counted as tokens."""
        if self.cache_tokens is None:
            return None
        # After an abort of the last sequence there is no step that would say that its blocks are free.
        return round(self.observed.cache_usage * self.cache_tokens) if is_busy else 0
