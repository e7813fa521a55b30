"""``TensorRtLlmCore``: the engine protocol over TensorRT-LLM's ``LLM``.

For each request one task follows the library to its last response, also after the consumer has got its end: the place
in the batch is free only then. Grammars compile and pictures are laid out in threads; everything else belongs to the
event loop in which ``generate`` is called.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.admission import check_request
from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats, FinishReason, Usage
from engine.errors import EngineError, EngineUnavailableError, InvalidGrammarError, QueueFullError
from engine.grammar import GrammarCompiler, GrammarState
from engine.spent import Spent
from engine.tensorrt_llm.arguments import starting_arguments
from engine.tensorrt_llm.cache_watch import CacheWatch
from engine.tensorrt_llm.checkpoint import read_checkpoint
from engine.tensorrt_llm.library import Generation, Library, Step
from engine.tensorrt_llm.mailbox import Mailbox
from engine.tensorrt_llm.places import Places
from engine.tensorrt_llm.progress import Progress
from engine.tensorrt_llm.prompts import Frame, budget_of, check_layout, frame_of, probe_text, skeleton
from engine.tensorrt_llm.sampling import refuse_unsupported, sampling_arguments

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from config.runtime import EngineRuntime
    from engine.images import ImageRun

logger = logging.getLogger("engine")

GRAMMAR_TIMEOUT_S = 10.0
HEALTH_TIMEOUT_S = 30.0
"""A check that takes longer hangs in the library, which is then lost."""


class _Live:
    """A request whose consumer waits, or whose last response from the library is still to come."""

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.mailbox = Mailbox()
        self.progress = Progress(request, None)
        self.generation: Generation | None = None
        self.task: asyncio.Task[None] | None = None

    def end(self, error: EngineError | None = None) -> None:
        """End it for the consumer, and ask the library to stop."""
        if error is not None:
            self.mailbox.fail(error)
        else:
            self.mailbox.put(EngineDelta((), (), FinishReason.ABORT, self.progress.usage()))
        if self.generation is not None:
            self.generation.abort()
        elif self.task is not None:
            self.task.cancel()


class TensorRtLlmCore:
    """Hosts one Gemma 4 model on TensorRT-LLM."""

    def __init__(self, runtime: EngineRuntime) -> None:
        """Load the model and warm it up.

        Raises:
            EngineLoadError: a file is missing or does not fit, or the library cannot load the model.
        """
        arguments = starting_arguments(runtime)
        self._checkpoint = read_checkpoint(Path(arguments["model"]), runtime.precision)
        self._limits = EngineLimits(
            context_tokens=runtime.context_tokens,
            max_sequences=runtime.max_sequences,
            max_queued=runtime.max_queued,
            vocab_size=self._checkpoint.vocab_size,
            vision=self._checkpoint.image_id is not None,
            grammar=True,
            logprobs=True,
            core="tensorrt_llm",
            model=self._checkpoint.name,
        )
        self._grammars = GrammarCompiler(runtime.tokenizer_path, self._checkpoint.vocab_size)
        self._library = Library(arguments)
        self._frame = Frame(0, 0)
        if self._limits.vision:
            self._frame = frame_of(self._library.prepare_pictures(probe_text()), self._checkpoint.pad_id)
        self._grammar_threads = ThreadPoolExecutor(2, "engine-grammar")
        # The image processor's budget is set for each request, so they take turns.
        self._vision_thread = ThreadPoolExecutor(1, "engine-vision")
        self._places = Places(runtime.max_sequences)
        self._live: set[_Live] = set()
        self._lost: EngineUnavailableError | None = None
        self._requests_total = 0
        self._totals = Usage(0, 0, 0)
        self._queued, self._compiling = Spent(), Spent()
        self._cache = CacheWatch(self._library, lambda: self._places.taken > 0)

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield deltas; see ``engine.core.EngineCore.generate``."""
        runs = check_request(request, self._limits, self._checkpoint.image_id)
        refuse_unsupported(request)
        if self._lost is not None:
            raise EngineUnavailableError(self._lost.message)
        if len(self._live) >= self._limits.max_sequences + self._limits.max_queued:
            message = f"{self._limits.max_queued} requests are waiting already"
            raise QueueFullError(message)
        self._requests_total += 1
        live = _Live(request)
        self._live.add(live)
        live.task = asyncio.create_task(self._follow(live, runs))
        live.task.add_done_callback(lambda task: self._finish(live, task))
        try:
            while True:
                delta = await live.mailbox.take()
                yield delta
                if delta.finish_reason is not None:
                    break
        finally:
            if not live.mailbox.is_closed:
                live.end()

    async def _follow(self, live: _Live, runs: tuple[ImageRun, ...]) -> None:
        """Take a request through the library; its consumer learns everything through the mailbox."""
        try:
            inputs, grammar = await self._prepare(live.request, runs)
            live.progress = Progress(live.request, grammar)
            with self._queued.one():
                await self._places.take(live.request.priority)
            try:
                self._cache.start()
                await self._run(live, inputs)
            finally:
                self._places.free()
        except EngineUnavailableError as error:
            live.mailbox.fail(error)
            # One response can fail in the library without harm to the others.
            if not await self._is_healthy():
                self._lose(error)
        except EngineError as error:
            live.end(error)

    async def _prepare(self, request: EngineRequest, runs: tuple[ImageRun, ...]) -> tuple[Any, GrammarState | None]:
        """Return what the library is given, and where the sequence is in its grammar."""
        grammar = await self._compile(request) if request.grammar is not None else None
        if not runs:
            return list(request.prompt_ids), grammar
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._vision_thread, self._lay_out, request, runs), grammar

    async def _compile(self, request: EngineRequest) -> GrammarState:
        """Compile the grammar here first: a bad one must be refused before the library has the request."""
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(
            self._grammar_threads, self._grammars.compile, request.grammar or "", request.stop_ids
        )
        try:
            with self._compiling.one():
                return await asyncio.wait_for(job, GRAMMAR_TIMEOUT_S)
        except TimeoutError as error:
            message = f"the grammar takes longer than {GRAMMAR_TIMEOUT_S:g} s to compile"
            raise InvalidGrammarError(message) from error

    def _lay_out(self, request: EngineRequest, runs: Sequence[ImageRun]) -> Any:
        """Return the request's ids with its pictures; runs in the vision thread."""
        text = skeleton(len(request.prompt_ids), runs, self._frame)
        budget = budget_of(max(run.count for run in runs))
        laid_out = self._library.laid_out(text, request.images, budget)
        check_layout(laid_out.prompt_token_ids, request.prompt_ids, self._checkpoint.image_id or 0)
        return self._library.with_ids(laid_out, request.prompt_ids)

    async def _run(self, live: _Live, inputs: Any) -> None:
        request = live.request
        parameters = self._library.parameters(sampling_arguments(request, self._checkpoint, self._limits))
        live.generation = self._library.start(inputs, parameters, request.cache_salt, request.logprobs)
        async for step in live.generation:
            # Until its last response the library still computes an ended sequence, and holds its memory.
            if not live.mailbox.is_closed:
                self._pass_on(live, step)

    @staticmethod
    def _pass_on(live: _Live, step: Step) -> None:
        """Tell the consumer of one step, and the library when the sequence has ended for us alone."""
        try:
            delta = live.progress.advance(step.token_ids, step.logprobs, step.finish_reason, step.cached_tokens)
        except EngineError as error:
            live.end(error)
            return
        if delta is not None:
            live.mailbox.put(delta)
        if live.progress.is_ended and step.finish_reason is None and live.generation is not None:
            live.generation.abort()

    def _finish(self, live: _Live, task: asyncio.Task[None]) -> None:
        """Forget a request whose task has ended, or was cancelled before it began."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a request failed", exc_info=error)
        # No consumer waits for ever, whatever went wrong; a sequence that has ended is not touched.
        live.mailbox.fail(EngineError("the engine failed to run this request"))
        self._live.discard(live)
        usage, totals = live.progress.usage(), self._totals
        if live.generation is not None:
            self._totals = Usage(
                totals.prompt_tokens + usage.prompt_tokens,
                totals.cached_tokens + usage.cached_tokens,
                totals.completion_tokens + usage.completion_tokens,
            )

    def _lose(self, error: EngineUnavailableError) -> None:
        """Note that the library is lost, and end everything that waits for it."""
        self._lost = self._lost or error
        for live in list(self._live):
            live.mailbox.fail(EngineUnavailableError(error.message))
            if live.task is not None and live.task is not asyncio.current_task():
                live.task.cancel()

    async def abort(self, request_id: str) -> None:
        """End all sequences of that id; their consumers get their last delta at once."""
        for live in [live for live in self._live if live.request.request_id == request_id]:
            live.end()

    async def health(self) -> bool:
        """Tell whether the library can generate; ends every sequence when it cannot."""
        if self._lost is None and not await self._is_healthy():
            self._lose(EngineUnavailableError("TensorRT-LLM has stopped working"))
        return self._lost is None

    async def _is_healthy(self) -> bool:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                return await asyncio.to_thread(self._library.is_healthy)
        except TimeoutError:
            return False

    def limits(self) -> EngineLimits:
        """Return the fixed limits."""
        return self._limits

    def stats(self) -> EngineStats:
        """Return counters and gauges."""
        return EngineStats(
            running=self._places.taken,
            queued=len(self._live) - self._places.taken,
            requests_total=self._requests_total,
            prompt_tokens_total=self._totals.prompt_tokens,
            cached_tokens_total=self._totals.cached_tokens,
            completion_tokens_total=self._totals.completion_tokens,
            kv_tokens=self._cache.tokens,
            kv_tokens_used=self._cache.used,
            started_total=self._queued.count,
            queue_us_total=self._queued.microseconds,
            grammars_total=self._compiling.count,
            grammar_us_total=self._compiling.microseconds,
        )

    async def close(self) -> None:
        """End every sequence, stop the workers and all threads."""
        self._lost = self._lost or EngineUnavailableError("the engine is closed")
        tasks = [live.task for live in self._live if live.task is not None]
        for live in list(self._live):
            live.end()
        await self._cache.close()
        await asyncio.to_thread(self._close)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _close(self) -> None:
        self._library.close()
        self._grammar_threads.shutdown(cancel_futures=True)
        self._vision_thread.shutdown(cancel_futures=True)
