"""One choice of an answer: an engine sequence on one side, parsed steps on the other.

Closing the steps closes the engine's iterator, which frees its slot. What the prompt is and what is allowed is
``api.chat.service``'s.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from api.chat.answers import LoggedToken, Step
from api.gemma4.events import CallEnd, CallStart, ContentDelta, Event, ReasoningDelta
from api.gemma4.parse import Parser
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import EngineDelta, EngineLimits, EngineRequest, FinishReason, TokenLogprob
from engine.errors import EngineUnavailableError


class Engine(Protocol):
    """What the chat service needs of the engine's client."""

    def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield deltas until one has a finish reason; closing the iterator aborts the sequence."""
        ...

    async def limits(self) -> EngineLimits:
        """Return the engine's limits.

        Raises:
            EngineUnavailableError: while the engine cannot be reached.
        """
        ...

    async def ready(self) -> bool:
        """Tell whether the engine can generate now."""
        ...


def new_call_id() -> str:
    """Return an id for a tool call."""
    return f"call_{uuid.uuid4().hex[:24]}"


class Choice:
    """One running choice. The attributes are final when ``steps`` has ended."""

    def __init__(
        self,
        request: EngineRequest,
        parser: Parser,
        tokenizer: Gemma4Tokenizer,
        *,
        silent_stop_ids: frozenset[int],
        one_by_one: bool,
        thoughts: bool,
    ) -> None:
        """Prepare.

        Args:
            request: what the engine is asked.
            parser: a fresh one, in the prompt's state.
            tokenizer: spells the tokens of probabilities.
            silent_stop_ids: ordinary ids that end the answer and are not part of it.
            one_by_one: look at every id on its own, as stop texts and probabilities need it.
            thoughts: pass the thought on to the caller.
        """
        self._silent_stop_ids = silent_stop_ids
        self._request = request
        self._parser = parser
        self._tokenizer = tokenizer
        self._one_by_one = one_by_one
        self._thoughts = thoughts
        self._pending: list[LoggedToken] = []
        self._has_call = False
        self.finish_reason = ""
        self.completion_tokens = 0
        self.cached_tokens: int | None = None

    @property
    def has_logprobs(self) -> bool:
        """Whether probabilities were asked for."""
        return self._request.logprobs is not None

    @property
    def reasoning_tokens(self) -> int:
        """Number of tokens that belong to thoughts, shown or not."""
        return self._parser.reasoning_tokens

    async def steps(self, engine: Engine) -> AsyncGenerator[Step, None]:
        """Run the sequence. A step may be empty: it only tells that the engine is at work.

        Raises:
            engine.errors.EngineError: when the engine refuses or fails.
        """
        async with aclosing(engine.generate(self._request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                step = self._read(delta)
                yield step
                if self.finish_reason:
                    return
        problem = "the engine's stream ended early"
        raise EngineUnavailableError(problem)

    def _read(self, delta: EngineDelta) -> Step:
        """Turn one delta into a step; set ``finish_reason`` with the last one."""
        self.completion_tokens += len(delta.token_ids)
        if delta.usage is not None:
            self.cached_tokens = delta.usage.cached_tokens
        delta = self._without_silent_stop(delta) if self._silent_stop_ids else delta
        logged: list[LoggedToken] = []
        events = self._feed_singly(delta, logged) if self._one_by_one else self._parser.feed(delta.token_ids)
        self._note_calls(events)
        reason = delta.finish_reason
        if reason is FinishReason.ABORT and not self._parser.stopped:
            problem = "the engine aborted the sequence"
            raise EngineUnavailableError(problem)
        if reason is not None or self._parser.stopped:
            events += self._end(delta, logged)
        if not self._thoughts:
            events = [event for event in events if type(event) is not ReasoningDelta]
        return Step(events, logged)

    def _without_silent_stop(self, delta: EngineDelta) -> EngineDelta:
        """Cut the caller's own stop id off the last delta."""
        ids = delta.token_ids
        if delta.finish_reason is not FinishReason.STOP or not ids or ids[-1] not in self._silent_stop_ids:
            return delta
        return replace(delta, token_ids=ids[:-1], logprobs=delta.logprobs[:-1])

    def _end(self, delta: EngineDelta, logged: list[LoggedToken]) -> list[Event]:
        """Finish the parser and settle reason and counts."""
        is_cut = self._parser.stopped or delta.finish_reason is FinishReason.LENGTH
        events = self._parser.finish(cut=is_cut)
        if delta.usage is not None and delta.finish_reason is not None:
            self.completion_tokens = delta.usage.completion_tokens
        if not self._parser.stopped:
            logged += self._pending
        self._note_calls(events)
        if self._parser.stopped:
            self.finish_reason = "stop"
        elif delta.finish_reason is FinishReason.LENGTH:
            self.finish_reason = "length"
        else:
            self.finish_reason = "tool_calls" if self._has_call else "stop"
        return events

    def _note_calls(self, events: list[Event]) -> None:
        if not self._has_call:
            self._has_call = any(type(event) is CallEnd for event in events)

    def _feed_singly(self, delta: EngineDelta, logged: list[LoggedToken]) -> list[Event]:
        """Feed id by id, so that nothing after a stop text counts and each probability finds its section."""
        events: list[Event] = []
        for position, token_id in enumerate(delta.token_ids):
            new = self._parser.feed((token_id,))
            events += new
            if self._parser.stopped:
                break
            if not delta.logprobs:
                continue
            # Text may be held back until it is clear what it is: so are its probabilities, and a call drops them.
            if self._parser.section == "content" and token_id not in self._tokenizer.special_ids:
                self._pending.append(self._log(delta.logprobs[position]))
            for event in new:
                if type(event) is ContentDelta:
                    logged += self._pending
                if type(event) in {ContentDelta, CallStart}:
                    self._pending.clear()
        return events

    def _log(self, entry: TokenLogprob) -> LoggedToken:
        spell = self._tokenizer.token_bytes
        return LoggedToken(
            spell(entry.token_id), entry.logprob, tuple((spell(rival), value) for rival, value in entry.top)
        )
