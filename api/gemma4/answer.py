"""The whole answer, gathered from events: what a response that is not streamed carries, and how it finished."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from api.gemma4.events import CallDelta, CallEnd, CallStart, ContentDelta, Event, ReasoningDelta
from engine.core import FinishReason


@dataclass(slots=True)
class AnsweredCall:
    """One call: arguments as JSON text, which is whole only when ``complete``."""

    call_id: str
    name: str
    arguments: str = ""
    complete: bool = False


@dataclass(slots=True)
class Answer:
    """Everything that a stream said."""

    content: str = ""
    reasoning: str = ""
    calls: list[AnsweredCall] = field(default_factory=list)


class AnswerCollector:
    """Joins events in linear time."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[AnsweredCall] = []
        self._arguments: list[list[str]] = []

    def add(self, events: Iterable[Event]) -> None:
        """Take more events."""
        for event in events:
            if isinstance(event, ContentDelta):
                self._content.append(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning.append(event.text)
            elif isinstance(event, CallStart):
                self._calls.append(AnsweredCall(event.call_id, event.name))
                self._arguments.append([])
            elif isinstance(event, CallDelta):
                self._arguments[event.index].append(event.arguments)
            else:
                self._calls[event.index].complete = True

    def answer(self) -> Answer:
        """Return what was gathered so far."""
        for call, parts in zip(self._calls, self._arguments, strict=True):
            call.arguments = "".join(parts)
        return Answer("".join(self._content), "".join(self._reasoning), self._calls)


def finish_name(reason: FinishReason, events: Iterable[Event]) -> str:
    """Return OpenAI's finish reason for an engine's reason and the events (all of them) of one answer."""
    if reason is FinishReason.LENGTH:
        return "length"
    return "tool_calls" if any(isinstance(event, CallEnd) for event in events) else "stop"
