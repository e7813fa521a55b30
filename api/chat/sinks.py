"""Where the steps of a choice go: to a dialect's stream, into a whole answer, or aside until that is known."""

from __future__ import annotations

from typing import Protocol

from api.chat.answers import LoggedToken, Step
from api.gemma4.answer import Answer, AnswerCollector
from api.gemma4.events import ContentDelta


class StepSink(Protocol):
    """Where the steps of one choice go."""

    def text(self, text: str) -> bool:
        """Take a step that only adds to the answer's text. Returns as ``write`` does."""
        ...

    def write(self, step: Step) -> bool:
        """Take a step; false asks to hold back further ones until the reader has caught up."""
        ...

    def end(self, finish_reason: str) -> None:
        """Learn that the choice has ended."""
        ...


class EarlySteps:
    """Keeps the steps that come before it is known where they go."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def text(self, text: str) -> bool:
        """Keep a piece of text."""
        return self.write(Step([ContentDelta(text)], []))

    def write(self, step: Step) -> bool:
        """Keep a step."""
        self.steps.append(step)
        return True

    def end(self, finish_reason: str) -> None:
        """Do nothing: the choice knows it."""


class StepCollector:
    """Puts the steps of one choice together."""

    def __init__(self) -> None:
        self._answer = AnswerCollector()
        self.logged: list[LoggedToken] = []
        self.token_ids: list[int] = []

    def text(self, text: str) -> bool:
        """Take a piece of text."""
        self._answer.add((ContentDelta(text),))
        return True

    def write(self, step: Step) -> bool:
        """Take a step."""
        self._answer.add(step.events)
        self.logged += step.logprobs
        self.token_ids += step.token_ids
        return True

    def end(self, finish_reason: str) -> None:
        """Do nothing: the choice knows it."""

    def answer(self) -> Answer:
        """Return what was put together so far."""
        return self._answer.answer()
