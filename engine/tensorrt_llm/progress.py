"""What one sequence's consumer is told: the library's steps as deltas, ended where the protocol ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core import EngineDelta, FinishReason, Usage
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.core import EngineRequest, TokenLogprob
    from engine.grammar import GrammarState

FINISHED = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH, "cancelled": FinishReason.ABORT}


class Progress:
    """Follows one sequence. The grammar's state is moved along to see its end: the library goes on to a stop id."""

    def __init__(self, request: EngineRequest, grammar: GrammarState | None) -> None:
        self._request = request
        self._grammar = grammar
        self._stops = frozenset(() if request.ignore_stop_ids else request.stop_ids)
        self._drawn = 0
        self._cached = 0
        self.is_ended = False
        """Whether a delta with a finish reason was made."""

    def usage(self) -> Usage:
        """Return the counts so far."""
        return Usage(len(self._request.prompt_ids), self._cached, self._drawn)

    def advance(
        self,
        token_ids: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...],
        finish_reason: str | None,
        cached_tokens: int,
    ) -> EngineDelta | None:
        """Return what the consumer learns of one step, or None when there is nothing to say.

        Raises:
            EngineError: the library ended the sequence for a reason of its own.
        """
        kept = self._until_end(token_ids)
        first = self._drawn == 0
        self._drawn += kept
        self._cached = cached_tokens
        reason = self._reason(finish_reason)
        self.is_ended = reason is not None
        if not kept and reason is None:
            return None
        usage = self.usage() if first or reason is not None else None
        return EngineDelta(token_ids[:kept], logprobs[:kept], reason, usage)

    def _until_end(self, token_ids: tuple[int, ...]) -> int:
        """Return how many of the ids belong to the sequence, and note its end."""
        for place, token_id in enumerate(token_ids):
            if token_id in self._stops:
                self.is_ended = True
            elif self._grammar is not None:
                self._grammar.accept(token_id)
                self.is_ended = self._grammar.is_finished
            if self.is_ended:
                return place + 1
        return len(token_ids)

    def _reason(self, finish_reason: str | None) -> FinishReason | None:
        if self.is_ended:
            return FinishReason.STOP
        if finish_reason is None:
            return None
        try:
            return FINISHED[finish_reason]
        except KeyError:
            message = f"TensorRT-LLM ended the sequence with {finish_reason!r}"
            raise EngineError(message) from None
