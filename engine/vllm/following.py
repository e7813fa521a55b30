"""One sequence's way through vLLM: what of each output is the protocol's delta, and where the sequence ends.

With a grammar, our own copy of it follows the ids. It tells where the answer is complete, so that the end token that
vLLM draws there is not passed on, and it is how a grammar that vLLM has given up on is noticed: vLLM then allows
nothing but its end token, which would look like a proper end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.core import EngineDelta, EngineRequest, FinishReason, TokenLogprob, Usage
from engine.errors import EngineError, InvalidGrammarError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.grammar import GrammarState

FINISHED_BY_ENGINE = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH, "abort": FinishReason.ABORT}
TOO_COMPLEX = "the grammar became too complex while generating"


@dataclass(slots=True)
class Following:
    """State of one sequence; ``end_id`` is the token that vLLM draws where a grammar has ended."""

    request: EngineRequest
    grammar: GrammarState | None
    end_id: int
    drawn: int = 0
    cached: int = 0
    _has_spoken: bool = field(default=False)

    def usage(self) -> Usage:
        """Return the counts as of now."""
        return Usage(len(self.request.prompt_ids), self.cached, self.drawn)

    def delta_of(self, output: Any) -> EngineDelta | None:
        """Return what an output of vLLM says; None when it says nothing.

        Raises:
            InvalidGrammarError: the grammar became too complex on the way.
        """
        completion = output.outputs[0]
        self.cached = output.num_cached_tokens or 0
        ids, finish = self._take(tuple(completion.token_ids), completion.finish_reason)
        self.drawn += len(ids)
        if not ids and finish is None:
            return None
        usage = self.usage() if finish is not None or not self._has_spoken else None
        self._has_spoken = True
        return EngineDelta(ids, self._logprobs(ids, completion), finish, usage)

    def aborted(self) -> EngineDelta:
        """Return the last delta of a sequence that was aborted."""
        return EngineDelta((), finish_reason=FinishReason.ABORT, usage=self.usage())

    def _logprobs(self, ids: tuple[int, ...], completion: Any) -> tuple[TokenLogprob, ...]:
        if self.request.logprobs is None or not ids:
            return ()
        return tuple(token_logprobs(ids, list(completion.logprobs)[: len(ids)], self.request.logprobs))

    def _take(self, ids: tuple[int, ...], ended: str | None) -> tuple[tuple[int, ...], FinishReason | None]:
        """Return the ids that count and why the sequence ends with them, None if it does not."""
        finish = None if ended is None else self._reason(ended)
        if self.grammar is None:
            return ids, finish
        for place, token_id in enumerate(ids):
            reached = self._follow(self.grammar, token_id)
            if reached is not None:
                kept = ids[:place] if reached == 0 else ids[: place + 1]
                return kept, FinishReason.STOP
            if self.drawn + place + 1 == self.request.max_tokens:
                return ids[: place + 1], FinishReason.LENGTH
        return ids, finish

    def _reason(self, ended: str) -> FinishReason:
        if ended in FINISHED_BY_ENGINE:
            return FINISHED_BY_ENGINE[ended]
        if self.grammar is not None:
            # What vLLM does when its copy of the grammar fails, at its start or on the way; ours has compiled.
            raise InvalidGrammarError(TOO_COMPLEX)
        message = f"vLLM ended the sequence: {ended}"
        raise EngineError(message)

    def _follow(self, grammar: GrammarState, token_id: int) -> int | None:
        """Advance by one id; return None when it goes on, else whether the id counts (1) or only marks the end (0)."""
        stops = () if self.request.ignore_stop_ids else self.request.stop_ids
        if token_id in stops and grammar.may_end:
            return 1
        if token_id == self.end_id:
            if not grammar.may_end:
                raise InvalidGrammarError(TOO_COMPLEX)
            return 0
        grammar.accept(token_id)
        return 1 if grammar.is_finished else None


def token_logprobs(token_ids: Sequence[int], logprobs: Sequence[Mapping[int, Any]], count: int) -> list[TokenLogprob]:
    """Return vLLM's log-probabilities of some drawn ids in the protocol's form.

    vLLM gives the drawn id besides the ``count`` most likely ones, each with its rank from 1 on.
    """
    result: list[TokenLogprob] = []
    for token_id, entries in zip(token_ids, logprobs, strict=True):
        ranked = sorted(entries.items(), key=lambda entry: entry[1].rank)
        top = tuple((other, found.logprob) for other, found in ranked if found.rank <= count)
        result.append(TokenLogprob(token_id, entries[token_id].logprob, top[:count]))
    return result
