"""What the chat service hands to a dialect: steps of a streamed choice, finished choices, token counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from api.gemma4.answer import Answer
from api.gemma4.events import Event


class LoggedToken(NamedTuple):
    """One token of the answer's text: its bytes, its natural-log probability, and its most likely rivals."""

    data: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


class Step(NamedTuple):
    """What one engine delta added to a choice. ``token_ids`` are there only where they were asked for."""

    events: list[Event]
    logprobs: list[LoggedToken]
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Token counts of one answer. ``cached_tokens`` is None when no token came before its end."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    image_tokens: int
    cached_tokens: int | None


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """One finished choice. ``logprobs`` and ``token_ids`` are None when they were not asked for."""

    answer: Answer
    finish_reason: str
    logprobs: list[LoggedToken] | None
    token_ids: list[int] | None = None
