"""Runs chat requests: checks, pictures, prompt, plan, engine, parser, in that order. Knows no dialect and no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

from api.chat.answers import ChoiceResult, TokenUsage
from api.chat.choice import Choice, new_call_id
from api.chat.engine import Engine
from api.chat.request import ChatRequest, TextPart
from api.chat.roles import check_roles
from api.chat.sinks import StepCollector, StepSink
from api.errors import QueueTimeoutError
from api.gemma4.parse import Parser
from api.gemma4.plan import GenerationPlan, make_plan
from api.gemma4.prompt import Prompt
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from api.media.resolver import MediaResolver
from api.telemetry.record import RequestRecord, current_record

_LONG_TEXT: Final = 100_000
"""Characters that take tens of milliseconds to render."""


class Conversation:
    """One accepted request with its choices. Close it, whatever happened."""

    def __init__(self, engine: Engine, prompt: Prompt, choices: list[Choice], max_queue_s: float | None = None) -> None:
        self.prompt_tokens = len(prompt.ids)
        self.prompt_ids = prompt.ids if choices[0].has_token_ids else None
        """The prompt's ids, where the caller asked for ids."""
        self._image_tokens = sum(image.soft_tokens for image in prompt.images)
        self._engine = engine
        self._choices = choices
        self._max_queue_s = max_queue_s
        self._news = asyncio.Event()
        self._record = current_record()
        self._record.choices = len(choices)

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far, by all choices."""
        return sum(choice.completion_tokens for choice in self._choices)

    async def begin(self) -> int:
        """Start every choice, wait until all have begun, and return how many there are.

        Raises:
            engine.errors.EngineError: when the engine refuses the request.
            api.errors.QueueTimeoutError: when it takes too long.
        """
        self._record.submitted = time.perf_counter()
        deadline = asyncio.timeout(self._max_queue_s)
        try:
            async with deadline:
                for choice in self._choices:
                    await choice.start(self._engine, self._news.set)
                await self._wait_until(lambda: all(choice.has_begun for choice in self._choices))
        except TimeoutError as error:
            if self._max_queue_s is None or not deadline.expired():
                raise
            raise QueueTimeoutError(self._max_queue_s) from error
        self._record.first_token = time.perf_counter()
        self._record.generated = self._generated
        return len(self._choices)

    async def run(self, sinks: Sequence[StepSink], drain: Callable[[], Awaitable[None]]) -> None:
        """Send the steps of each choice to its sink until all have ended.

        Args:
            sinks: one for each choice; the steps that are there already come first.
            drain: waits until a reader who is behind has caught up; meanwhile what comes is held back.

        Raises:
            engine.errors.EngineError: when the engine fails.
        """
        for choice, sink in zip(self._choices, sinks, strict=True):
            choice.attach(sink)
        while True:
            await self._wait_until(
                lambda: (
                    all(choice.has_ended for choice in self._choices) or any(choice.is_held for choice in self._choices)
                )
            )
            held = [choice for choice in self._choices if choice.is_held]
            if not held:
                return
            await drain()
            for choice in held:
                choice.release()

    async def results(self) -> list[ChoiceResult]:
        """Run every choice to its end.

        Raises:
            engine.errors.EngineError: when the engine refuses or fails.
        """
        await self.begin()
        sinks = [StepCollector() for _ in self._choices]
        await self.run(sinks, _nothing_to_wait_for)
        return [
            ChoiceResult(
                sink.answer(),
                choice.finish_reason,
                sink.logged if choice.has_logprobs else None,
                sink.token_ids if choice.has_token_ids else None,
            )
            for choice, sink in zip(self._choices, sinks, strict=True)
        ]

    def usage(self) -> TokenUsage:
        """Return the token counts; the prompt counts once."""
        return TokenUsage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=sum(choice.reasoning_tokens for choice in self._choices),
            image_tokens=self._image_tokens,
            cached_tokens=self._choices[0].cached_tokens,
        )

    def close(self) -> None:
        """End what still runs and free its slots in the engine."""
        for choice in self._choices:
            choice.close()
        self._note_end(self._record)

    def _generated(self) -> int:
        return self.completion_tokens

    def _note_end(self, record: RequestRecord) -> None:
        if record.ended is None:
            record.generated = None
            record.ended = time.perf_counter()
            record.finish_reasons = tuple(choice.finish_reason for choice in self._choices if choice.has_ended)
            usage = self.usage()
            record.prompt_tokens, record.completion_tokens = usage.prompt_tokens, usage.completion_tokens
            record.reasoning_tokens, record.image_tokens = usage.reasoning_tokens, usage.image_tokens
            record.cached_tokens = usage.cached_tokens

    async def _wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until the choices are as wished, unless one of them fails before: then raise what it failed with."""
        while not is_so():
            for choice in self._choices:
                if choice.error is not None:
                    raise choice.error
            self._news.clear()
            await self._news.wait()


def _text_length(request: ChatRequest) -> int:
    """Return how many characters of text the messages have."""
    contents = [message.content for message in request.messages]
    parts = chain.from_iterable(content for content in contents if isinstance(content, tuple))
    texts = [content for content in contents if isinstance(content, str)]
    return sum(map(len, texts)) + sum(len(part.text) for part in parts if isinstance(part, TextPart))


async def _nothing_to_wait_for() -> None:
    """Return: a collector is never behind."""


class ChatService:
    """Turns requests into conversations with the engine."""

    def __init__(
        self, engine: Engine, tokenizer: Gemma4Tokenizer, media: MediaResolver, max_queue_s: float | None = None
    ) -> None:
        """Start a service; answers must begin within ``max_queue_s`` seconds."""
        self._engine = engine
        self._max_queue_s = max_queue_s
        self._media = media
        self.tokenizer = tokenizer

    async def prepare(self, request: ChatRequest, answer_id: str, adapter: str | None = None) -> Conversation:
        """Check and render a request; nothing is generated before the conversation is read.

        Args:
            request: what is asked.
            answer_id: from which the engine's ids of the choices are made.
            adapter: the LoRA adapter that answers; None is the model itself.

        Raises:
            api.errors.ApiError: a picture that cannot be used.
            api.chat.errors.ChatError: any other fault of the request.
            engine.errors.EngineUnavailableError: while the engine cannot be reached.
        """
        record = current_record()
        record.prepared_from = time.perf_counter()
        record.model, record.max_tokens = request.model, request.limits.max_tokens
        record.temperature = request.sampling.temperature
        check_roles(request)
        limits = await self._engine.limits()
        request = await self._media.resolve(request, vision=limits.vision)
        record.pictures_done = time.perf_counter()
        prompt = await self._rendered(request, limits.context_tokens)
        record.rendered = time.perf_counter()
        plan = make_plan(request, prompt, self.tokenizer, context_tokens=limits.context_tokens)
        plan = replace(plan, adapter=adapter)
        choices = [self._choice(request, prompt, plan, f"{answer_id}-{index}", index) for index in range(request.n)]
        return Conversation(self._engine, prompt, choices, self._max_queue_s)

    async def render(self, request: ChatRequest) -> Prompt:
        """Check and render a request as ``prepare`` does, without an engine: pictures are taken whatever the model has.

        Raises:
            api.errors.ApiError: a picture that cannot be used.
            api.chat.errors.ChatError: any other fault of the messages or tools.
        """
        check_roles(request)
        return await self._rendered(await self._media.resolve(request, vision=True), None)

    async def _rendered(self, request: ChatRequest, context_tokens: int | None) -> Prompt:
        """Render; a long text in a thread, so that other answers go on meanwhile."""
        if _text_length(request) < _LONG_TEXT:
            return render(request, self.tokenizer, context_tokens)
        return await asyncio.to_thread(render, request, self.tokenizer, context_tokens)

    def _choice(
        self, request: ChatRequest, prompt: Prompt, plan: GenerationPlan, request_id: str, index: int
    ) -> Choice:
        """Return one of the ``n`` choices, with a parser of its own."""
        parser = Parser(
            self.tokenizer,
            prompt.state,
            tools=request.tools,
            new_call_id=new_call_id,
            open_call=prompt.open_call,
            stop=plan.stop,
            tool_calls=plan.tool_calls,
        )
        return Choice(
            plan.engine_request(prompt, request_id, index),
            parser,
            self.tokenizer,
            silent_stop_ids=frozenset(plan.extra_stop_ids),
            one_by_one=bool(plan.stop) or plan.logprobs is not None,
            thoughts=request.thinking.include,
            token_ids=request.token_ids,
        )
