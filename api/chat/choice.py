"""One choice of an answer: an engine sequence on one side, parsed steps on the other.

The engine calls, and the call ends where the step is written: between them there is no task and no queue. What the
prompt is and what is allowed is ``api.chat.service``'s.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

from api.chat.answers import LoggedToken, Step
from api.chat.engine import Engine
from api.chat.sinks import EarlySteps, StepSink
from api.gemma4.events import CallEnd, CallStart, ContentDelta, Event, ReasoningDelta
from api.gemma4.parse import Parser
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import (
    EngineDelta,
    EngineRequest,
    FinishReason,
    Running,
    TokenLogprob,
    join_deltas,
)
from engine.errors import EngineError, EngineUnavailableError


def _ignore() -> None:
    """Do nothing."""


def new_call_id() -> str:
    """Return an id for a tool call."""
    return f"call_{uuid.uuid4().hex[:24]}"


class Choice:
    """One running choice, an ``engine.core.Receiver``. The attributes are final once ``has_ended``."""

    def __init__(  # noqa: PLR0913 - what a caller may want of an answer has four independent facets
        self,
        request: EngineRequest,
        parser: Parser,
        tokenizer: Gemma4Tokenizer,
        *,
        silent_stop_ids: frozenset[int],
        one_by_one: bool,
        thoughts: bool,
        token_ids: bool = False,
    ) -> None:
        """Prepare.

        Args:
            request: what the engine is asked.
            parser: a fresh one, in the prompt's state.
            tokenizer: spells the tokens of probabilities.
            silent_stop_ids: ordinary ids that end the answer and are not part of it.
            one_by_one: look at every id on its own, as stop texts and probabilities need it.
            thoughts: pass the thought on to the caller.
            token_ids: tell the caller the ids of every step.
        """
        self._silent_stop_ids = silent_stop_ids
        self._request = request
        self._parser = parser
        self._tokenizer = tokenizer
        self._one_by_one = one_by_one
        self._thoughts = thoughts
        self._pending: list[LoggedToken] = []
        self._fed = 0
        self._has_call = False
        self._is_plain = thoughts and not one_by_one and not token_ids
        self.has_token_ids = token_ids
        self._sink: StepSink = EarlySteps()
        self._held: list[EngineDelta] | None = None
        self._running: Running | None = None
        self._on_change: Callable[[], None] = _ignore
        self.has_begun = False
        self.error: Exception | None = None
        """Why it has failed, if it has."""
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

    @property
    def has_ended(self) -> bool:
        """Whether the last step was written."""
        return bool(self.finish_reason)

    @property
    def is_held(self) -> bool:
        """Whether steps are held back until ``release``."""
        return self._held is not None

    async def start(self, engine: Engine, on_change: Callable[[], None]) -> None:
        """Start the sequence. ``on_change`` is called when the choice has begun, is held, has ended or has failed.

        Raises:
            engine.errors.EngineUnavailableError: the engine cannot be reached.
        """
        self._on_change = on_change
        self._running = await engine.start(self._request, self)

    def close(self) -> None:
        """End the sequence if it still runs, which frees its slot in the engine."""
        if self._running is not None:
            self._running.close()

    def attach(self, sink: StepSink) -> None:
        """Send the steps to ``sink`` from now on, those that are there already at once."""
        early, self._sink = self._sink, sink
        for step in early.steps if isinstance(early, EarlySteps) else ():
            self._write(step)
        if self.finish_reason:
            sink.end(self.finish_reason)

    def release(self) -> None:
        """Go on after a hold: what came meanwhile is one step."""
        held, self._held = self._held, None
        if held:
            self.delta(join_deltas(held))

    # What the engine calls

    def ids(self, token_ids: tuple[int, ...]) -> None:
        """Read ids about which there is nothing else to say: nearly every token comes this way."""
        if self._held is not None or not self._is_plain or not self.has_begun:
            self.delta(EngineDelta(token_ids))
            return
        try:
            self.completion_tokens += len(token_ids)
            text = self._parser.plain_text(token_ids[0]) if len(token_ids) == 1 else None
            if text is None:
                self._write_events(self._parser.feed(token_ids))
            elif not self._sink.text(text):
                self._hold()
        except Exception as error:  # noqa: BLE001 - the request's boundary: it fails, the engine's other sequences go on
            self._fail(error)

    def delta(self, delta: EngineDelta) -> None:
        """Read a delta."""
        if self._held is not None:
            self._held.append(delta)
            return
        try:
            self._write(self._read(delta))
            if self.finish_reason:
                self.close()
                self._sink.end(self.finish_reason)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        if not self.has_begun or self.finish_reason:
            self.has_begun = True
            self._on_change()

    def failed(self, error: EngineError) -> None:
        """Fail, but not before what was held back."""
        self.release()
        if not self.finish_reason:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            self.close()
            self._on_change()

    def _write(self, step: Step) -> None:
        if not self._sink.write(step):
            self._hold()

    def _write_events(self, events: list[Event]) -> None:
        if events:
            self._note_calls(events)
            self._write(Step(events, []))

    def _hold(self) -> None:
        if self._held is None:
            self._held = []
            self._on_change()

    def _read(self, delta: EngineDelta) -> Step:
        """Turn one delta into a step; set ``finish_reason`` with the last one."""
        self.completion_tokens += len(delta.token_ids)
        if delta.usage is not None:
            self.cached_tokens = delta.usage.cached_tokens
        ids = delta.token_ids if self.has_token_ids else ()
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
        # Nothing that the engine drew after a stop text is part of the answer.
        return Step(events, logged, ids[: self._fed] if self._parser.stopped else ids)

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
                self._fed = position + 1
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
