"""Has a core answer the questions of the gate, and records its answers with the likeliest tokens at every position.

Everything goes through the ``EngineCore`` protocol, one token at a time where a core is to follow another's answer, so
that the same code measures every engine. The comparison is left to ``gate``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.core import EngineCore, EngineRequest, Sampling, TokenLogprob
from engine_build.errors import BundleError, TrialError
from engine_build.questions import Prompt, PromptWriter, Question, all_questions

ANSWERS_FILE: Final = "answers.json"
MAX_ANSWER_TOKENS: Final = 24
TOP_TOKENS: Final = 20
"""Likeliest tokens that are recorded at each position; the most that every core gives."""
GREEDY: Final = Sampling(temperature=0.0, top_k=0, top_p=1.0)

T = TypeVar("T")
Tell = Callable[[int, int], None]
"""Takes how many requests are done, and how many there are."""


class Position(BaseModel):
    """The likeliest tokens at one position with their natural-log probabilities, the likeliest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class Answer(BaseModel):
    """A greedy answer: its ids, what they spell, and what else was likely at each of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[int, ...]
    text: str
    positions: tuple[Position, ...]


class Answers(BaseModel):
    """The answers of one model to all questions, None for those about pictures where it has no vision tower."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Digest of the checkpoint that the weights came from."""
    precision: str
    answers: tuple[Answer | None, ...]


def read_answers(path: Path) -> Answers:
    """Return recorded answers.

    Raises:
        BundleError: the file cannot be read, or holds something else.
    """
    try:
        return Answers.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise BundleError(f"{path}: holds no answers of the accuracy gate") from error


class Respondent:
    """One loaded core, asked as many questions at a time as it takes."""

    def __init__(self, core: EngineCore, writer: PromptWriter) -> None:
        self._core = core
        self._writer = writer
        limits = core.limits()
        self._has_vision = limits.vision
        self._free = asyncio.Semaphore(limits.max_sequences)
        self._numbers = itertools.count()

    async def answer_all(self, tell: Tell) -> tuple[Answer | None, ...]:
        """Return its own greedy answers."""
        return tuple(await _gather([partial(self._answer, question) for question in all_questions()], tell))

    async def follow_all(
        self, own: Sequence[Answer | None], lead: Sequence[Answer | None], tell: Tell
    ) -> list[tuple[Position, ...] | None]:
        """Return what it holds likely at each position of another model's answers."""
        jobs = [partial(self._follow, *each) for each in zip(all_questions(), own, lead, strict=True)]
        return await _gather(jobs, tell)

    async def _answer(self, question: Question) -> Answer | None:
        if question.picture is not None and not self._has_vision:
            return None
        ids, entries = await self._draw(self._writer.question(question), MAX_ANSWER_TOKENS)
        return Answer(ids=ids, text=self._writer.text(ids), positions=tuple(map(_position, entries)))

    async def _follow(self, question: Question, own: Answer | None, lead: Answer | None) -> tuple[Position, ...] | None:
        if own is None or lead is None:
            return None
        prompt = self._writer.question(question)
        positions: list[Position] = []
        for place in range(len(lead.ids)):
            if own.ids[:place] == lead.ids[:place] and place < len(own.positions):
                # So far it has said the same by itself, and was asked already.
                positions.append(own.positions[place])
                continue
            _, entries = await self._draw(Prompt(prompt.ids + lead.ids[:place], prompt.images), 1)
            positions.append(_position(entries[0]))
        return tuple(positions)

    async def _draw(self, prompt: Prompt, max_tokens: int) -> tuple[tuple[int, ...], tuple[TokenLogprob, ...]]:
        request = EngineRequest(
            request_id=f"gate-{next(self._numbers)}",
            prompt_ids=prompt.ids,
            max_tokens=max_tokens,
            images=prompt.images,
            sampling=GREEDY,
            stop_ids=self._writer.stop_ids,
            logprobs=TOP_TOKENS,
        )
        ids: list[int] = []
        entries: list[TokenLogprob] = []
        async with self._free:
            async for delta in self._core.generate(request):
                ids.extend(delta.token_ids)
                entries.extend(delta.logprobs)
        if not ids or len(entries) != len(ids):
            raise TrialError(f"{request.request_id}: {len(ids)} tokens came with {len(entries)} log-probabilities")
        return tuple(ids), tuple(entries)


def _position(entry: TokenLogprob) -> Position:
    return Position(ids=tuple(i for i, _ in entry.top), logprobs=tuple(p for _, p in entry.top))


async def _gather(jobs: Sequence[Callable[[], Awaitable[T]]], tell: Tell) -> list[T]:
    done = itertools.count(1)

    async def run(job: Callable[[], Awaitable[T]]) -> T:
        result = await job()
        tell(next(done), len(jobs))
        return result

    return list(await asyncio.gather(*(run(job) for job in jobs)))
