"""Warms an engine up as real requests do, and measures: text, a picture, a grammar, and as many at once as it takes.

Everything goes through the ``EngineCore`` protocol. What a request makes an engine compile or choose is in its caches
afterwards; where those lie is ``caches``' matter.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pydantic import BaseModel, ConfigDict

from engine.core import EngineCore, EngineRequest, Sampling
from engine_build.answers import GREEDY
from engine_build.errors import TrialError
from engine_build.questions import Drawing, Prompt, PromptWriter, Question

TEXT_TOKENS: Final = 64
BATCH_TOKENS: Final = 32
GUIDED_TOKENS: Final = 16
GRAMMAR: Final = "start: /[a-c]{3}-[0-9]{2}/"
GUIDED: Final = re.compile(r"[a-c]{3}-[0-9]{2}")
"""What the grammar allows: it is checked, because an engine that ignores grammars answers as well."""
_TEXT: Final = Question(ask="Describe a quiet evening at home in a few sentences.", expect=())
_PICTURE: Final = Question(ask="What is in the picture?", expect=(), picture=Drawing(shape="circle", rgb=(30, 60, 220)))
_GUIDED: Final = Question(ask="Give me a code.", expect=())


class WarmUp(BaseModel):
    """What the requests of a warm-up took. Seconds are of the wall; the first of each kind pays for what it compiles.

    Attributes:
        first_token_s: of the very first request, from handing it over to its first token.
        text_s, picture_s, guided_s: whole requests, one at a time; ``picture_s`` is None without a vision tower.
        tokens_per_second: of one request alone, after its first token, when everything is warm.
        batch_sequences: how many ran at once.
        batch_tokens_per_second: all of them together, prompts included in the time.
        warm_first_token_s: to the first token of one request, when everything is warm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_token_s: float
    text_s: float
    picture_s: float | None
    guided_s: float
    tokens_per_second: float
    batch_sequences: int
    batch_tokens_per_second: float
    warm_first_token_s: float


class _Timed(BaseModel):
    """One request: when its first and last token came, in seconds after it was handed over, and its ids."""

    ids: tuple[int, ...]
    first_s: float
    whole_s: float


class Exercise:
    """The requests of one warm-up."""

    def __init__(self, core: EngineCore, writer: PromptWriter) -> None:
        self._core = core
        self._writer = writer
        self._numbers = itertools.count()

    async def first_token(self) -> float:
        """Return the seconds to the first token of one short request."""
        return (await self._run(self._request(_TEXT, 1))).first_s

    async def run(self, tell: Callable[[str], None]) -> WarmUp:
        """Send everything.

        Raises:
            TrialError: a request gave too few tokens, or its grammar was not followed.
            engine.errors.EngineError: the engine failed.
        """
        limits = self._core.limits()
        tell("text")
        first = await self._run(self._request(_TEXT, TEXT_TOKENS))
        picture: _Timed | None = None
        if limits.vision:
            tell("picture")
            picture = await self._run(self._request(_PICTURE, BATCH_TOKENS))
        tell("grammar")
        guided = await self._guided()
        tell(f"{limits.max_sequences} requests at once")
        batch_rate = await self._batch(limits.max_sequences)
        tell("text, now that it is warm")
        warm = await self._run(self._request(_TEXT, TEXT_TOKENS, salt="warm"))
        return WarmUp(
            first_token_s=first.first_s,
            text_s=first.whole_s,
            picture_s=None if picture is None else picture.whole_s,
            guided_s=guided.whole_s,
            tokens_per_second=(len(warm.ids) - 1) / max(warm.whole_s - warm.first_s, 1e-9),
            batch_sequences=limits.max_sequences,
            batch_tokens_per_second=batch_rate,
            warm_first_token_s=warm.first_s,
        )

    async def _guided(self) -> _Timed:
        request = replace(self._request(_GUIDED, GUIDED_TOKENS), grammar=GRAMMAR, ignore_stop_ids=False, min_tokens=0)
        timed = await self._run(request, least=1)
        text = self._writer.text(timed.ids)
        if not GUIDED.fullmatch(text.strip()):
            raise TrialError(f"the grammar {GRAMMAR!r} was not followed: the answer is {text!r}")
        return timed

    async def _batch(self, sequences: int) -> float:
        """Return the tokens per second of a full batch; each prompt is another, so that none is found in a cache."""
        requests = [
            self._request(Question(ask=f"Tell me about the number {number}.", expect=()), BATCH_TOKENS)
            for number in range(sequences)
        ]
        started = time.perf_counter()
        results = await asyncio.gather(*(self._run(request) for request in requests))
        return sum(len(timed.ids) for timed in results) / max(time.perf_counter() - started, 1e-9)

    def _request(self, question: Question, max_tokens: int, salt: str = "") -> EngineRequest:
        prompt: Prompt = self._writer.question(question)
        room = self._core.limits().context_tokens - len(prompt.ids)
        return EngineRequest(
            request_id=f"warm-up-{next(self._numbers)}",
            prompt_ids=prompt.ids,
            max_tokens=min(max_tokens, room),
            images=prompt.images,
            sampling=GREEDY if max_tokens == 1 else Sampling(seed=1),
            stop_ids=self._writer.stop_ids,
            # The length is what is measured, so it must not depend on what the model says.
            ignore_stop_ids=True,
            cache_salt=salt,
        )

    async def _run(self, request: EngineRequest, least: int | None = None) -> _Timed:
        started = time.perf_counter()
        first: float | None = None
        ids: list[int] = []
        async for delta in self._core.generate(request):
            if delta.token_ids and first is None:
                first = time.perf_counter() - started
            ids.extend(delta.token_ids)
        wanted = request.max_tokens if least is None else least
        if first is None or len(ids) < wanted:
            raise TrialError(f"{request.request_id} gave {len(ids)} tokens where {wanted} were expected")
        return _Timed(ids=tuple(ids), first_s=first, whole_s=time.perf_counter() - started)
