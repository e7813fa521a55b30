"""Runs chat requests: checks, pictures, prompt, plan, engine, parser, in that order. Knows no dialect and no HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

from api.chat.answers import ChoiceResult, LoggedToken, Step, TokenUsage
from api.chat.choice import Choice, Engine, new_call_id
from api.chat.request import ChatRequest
from api.chat.roles import check_roles
from api.chat.together import run_together
from api.gemma4.answer import AnswerCollector
from api.gemma4.parse import Parser
from api.gemma4.plan import GenerationPlan, make_plan
from api.gemma4.prompt import Prompt
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from api.media.resolver import MediaResolver


class Conversation:
    """One accepted request with its running choices. Close it, whatever happened."""

    def __init__(self, engine: Engine, prompt: Prompt, choices: list[Choice]) -> None:
        self.prompt_tokens = len(prompt.ids)
        self._image_tokens = sum(image.soft_tokens for image in prompt.images)
        self._choices = choices
        self._streams = [choice.steps(engine) for choice in choices]

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far, by all choices."""
        return sum(choice.completion_tokens for choice in self._choices)

    async def first_steps(self) -> list[Step]:
        """Wait until every choice has begun.

        Raises:
            engine.errors.EngineError: when the engine refuses the request.
        """
        return await run_together([_next(stream) for stream in self._streams])

    def steps(self, index: int) -> AsyncIterator[Step]:
        """Return the steps of one choice that were not taken yet."""
        return self._streams[index]

    def finish_reason(self, index: int) -> str:
        """Return why a choice has ended."""
        return self._choices[index].finish_reason

    async def results(self) -> list[ChoiceResult]:
        """Run every choice to its end.

        Raises:
            engine.errors.EngineError: when the engine refuses or fails.
        """
        return await run_together([self._collect(index) for index in range(len(self._choices))])

    def usage(self) -> TokenUsage:
        """Return the token counts; the prompt counts once."""
        return TokenUsage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=sum(choice.reasoning_tokens for choice in self._choices),
            image_tokens=self._image_tokens,
            cached_tokens=self._choices[0].cached_tokens,
        )

    async def close(self) -> None:
        """End what still runs and free its slots in the engine."""
        for stream in self._streams:
            await stream.aclose()

    async def _collect(self, index: int) -> ChoiceResult:
        collector = AnswerCollector()
        logged: list[LoggedToken] = []
        async for step in self._streams[index]:
            collector.add(step.events)
            logged += step.logprobs
        choice = self._choices[index]
        return ChoiceResult(collector.answer(), choice.finish_reason, logged if choice.has_logprobs else None)


async def _next(stream: AsyncIterator[Step]) -> Step:
    return await anext(stream)


class ChatService:
    """Turns requests into conversations with the engine."""

    def __init__(self, engine: Engine, tokenizer: Gemma4Tokenizer, media: MediaResolver) -> None:
        self._engine = engine
        self._media = media
        self.tokenizer = tokenizer

    async def prepare(self, request: ChatRequest, answer_id: str) -> Conversation:
        """Check and render a request; nothing is generated before the conversation is read.

        Raises:
            api.errors.ApiError: a picture that cannot be used.
            api.chat.errors.ChatError: any other fault of the request.
            engine.errors.EngineUnavailableError: while the engine cannot be reached.
        """
        check_roles(request)
        limits = await self._engine.limits()
        request = await self._media.resolve(request, vision=limits.vision)
        prompt = render(request, self.tokenizer)
        plan = make_plan(request, prompt, self.tokenizer, context_tokens=limits.context_tokens)
        choices = [self._choice(request, prompt, plan, f"{answer_id}-{index}", index) for index in range(request.n)]
        return Conversation(self._engine, prompt, choices)

    async def render(self, request: ChatRequest) -> Prompt:
        """Check and render a request as ``prepare`` does, without an engine: pictures are taken whatever the model has.

        Raises:
            api.errors.ApiError: a picture that cannot be used.
            api.chat.errors.ChatError: any other fault of the messages or tools.
        """
        check_roles(request)
        return render(await self._media.resolve(request, vision=True), self.tokenizer)

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
        )
