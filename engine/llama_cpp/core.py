"""``LlamaCppCore``: the engine protocol over the step thread.

It prepares requests (checks, grammar, image embeddings) off both the event loop and the step thread, and carries
outcomes from the step thread to each consumer. It belongs to the event loop in which ``generate`` is first called.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.admission import check_request
from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats, FinishReason, Image, Usage
from engine.errors import EngineLoadError, EngineUnavailableError, InvalidGrammarError, QueueFullError
from engine.grammar import GrammarCompiler, GrammarState
from engine.images import ImageRun, image_key
from engine.llama_cpp.batcher import Batcher
from engine.llama_cpp.context import Context, ContextOptions
from engine.llama_cpp.model import Model
from engine.llama_cpp.prefix_cache import Prompt, prompt_keys
from engine.llama_cpp.sampling import SequenceSampler
from engine.llama_cpp.sequence import Mailbox, Outcome, Sequence
from engine.llama_cpp.vision import VisionTower
from engine.spent import Spent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy as np
    from numpy.typing import NDArray

    from config.runtime import EngineRuntime

    Embeddings = NDArray[np.float32]

GRAMMAR_TIMEOUT_S = 10.0
TEXT_BATCH_TOKENS = 512
VISION_BATCH_TOKENS = 1280
"""An image block is decoded whole, so a batch must hold the largest one; a multiple of 256 suits the KV padding."""
SWITCH_INTERVAL_S = 0.001
"""How long the event loop may keep the interpreter lock while the step thread waits for it; the default is 5 ms."""


@dataclass(slots=True, eq=False)
class _Live:
    """A request whose consumer is waiting; ``sequence`` is set once everything is prepared."""

    request: EngineRequest
    mailbox: Mailbox
    sequence: Sequence | None = None


class LlamaCppCore:
    """Hosts one Gemma 4 model on llama.cpp."""

    def __init__(self, runtime: EngineRuntime) -> None:
        """Load everything; this takes as long as reading the files takes, and releases the interpreter lock meanwhile.

        Raises:
            EngineLoadError: a file is missing, damaged or of another model, or memory is short.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        if runtime.model_path is None:
            message = "llama_cpp loads a GGUF file; none is named"
            raise EngineLoadError(message)
        self._model = Model(runtime.model_path, runtime.gpu_layers)
        self._grammars = GrammarCompiler(runtime.tokenizer_path, self._model.vocab_size)
        self._vision: VisionTower | None = None
        if runtime.mmproj_path is not None:
            self._vision = VisionTower(
                self._model, runtime.mmproj_path, runtime.threads, use_gpu=runtime.gpu_layers > 0
            )
        self._context = Context(self._model, self._context_options(runtime))
        self._limits = EngineLimits(
            context_tokens=self._context.context_tokens,
            max_sequences=runtime.max_sequences,
            max_queued=runtime.max_queued,
            vocab_size=self._model.vocab_size,
            vision=self._vision is not None and self._model.image_token_id is not None,
            grammar=True,
            logprobs=True,
            core="llama_cpp",
            model=self._model.name,
        )
        self._batcher = Batcher(self._context, runtime.max_sequences, self._model.sliding_window, self._deliver)
        # One thread for the vision tower, which is not thread-safe; two for grammars, so that one hard grammar does not
        # hold up the next.
        self._vision_thread = ThreadPoolExecutor(1, "engine-vision")
        self._grammar_threads = ThreadPoolExecutor(2, "engine-grammar")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._live: set[_Live] = set()
        self._requests_total = 0
        self._compiling = Spent()
        self._encoding = Spent()

    @staticmethod
    def _context_options(runtime: EngineRuntime) -> ContextOptions:
        wanted = VISION_BATCH_TOKENS if runtime.mmproj_path is not None else TEXT_BATCH_TOKENS
        batch_tokens = max(wanted, runtime.max_sequences)
        return ContextOptions(runtime.context_tokens, runtime.max_sequences, batch_tokens, runtime.threads)

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield deltas; see ``engine.core.EngineCore.generate``."""
        runs = check_request(request, self._limits, self._model.image_token_id)
        if len(self._live) >= self._limits.max_sequences + self._limits.max_queued:
            message = f"{self._limits.max_queued} requests are waiting already"
            raise QueueFullError(message)
        self._loop = asyncio.get_running_loop()
        self._requests_total += 1
        live = _Live(request, Mailbox(self._loop))
        self._live.add(live)
        try:
            live.sequence = await self._prepare(live, runs)
            if live.sequence is not None:
                self._batcher.submit(live.sequence)
            while True:
                delta = await live.mailbox.take()
                yield delta
                if delta.finish_reason is not None:
                    break
        finally:
            self._live.discard(live)
            self._release(live)

    async def _prepare(self, live: _Live, runs: tuple[ImageRun, ...]) -> Sequence | None:
        """Return what the step thread needs, or None when the request was aborted meanwhile."""
        request = live.request
        if request.grammar is None and not request.images:
            return self._sequence(live, runs, None, ())
        preparing = asyncio.ensure_future(self._prepare_inputs(request))
        aborting = asyncio.ensure_future(live.mailbox.arrival())
        try:
            await asyncio.wait({preparing, aborting}, return_when=asyncio.FIRST_COMPLETED)
            return self._sequence(live, runs, *preparing.result()) if preparing.done() else None
        finally:
            preparing.cancel()
            aborting.cancel()

    async def _prepare_inputs(self, request: EngineRequest) -> tuple[GrammarState | None, tuple[Embeddings, ...]]:
        loop = asyncio.get_running_loop()
        grammar = await self._compile(request) if request.grammar is not None else None
        embeddings = [await loop.run_in_executor(self._vision_thread, self._encode, image) for image in request.images]
        return grammar, tuple(embeddings)

    def _sequence(
        self,
        live: _Live,
        runs: tuple[ImageRun, ...],
        grammar: GrammarState | None,
        embeddings: tuple[Embeddings, ...],
    ) -> Sequence:
        request = live.request
        digests = [image_key(image) for image in request.images]
        prompt = Prompt(prompt_keys(request.prompt_ids, runs, digests), runs, request.cache_salt)
        sampler = SequenceSampler(request, self._limits.vocab_size)
        return Sequence(request, prompt, embeddings, sampler, grammar, live.mailbox)

    async def _compile(self, request: EngineRequest) -> GrammarState:
        loop = asyncio.get_running_loop()
        begun = request.prompt_ids[len(request.prompt_ids) - request.grammar_begun :]
        job = loop.run_in_executor(
            self._grammar_threads, self._grammars.compile, request.grammar or "", request.stop_ids, begun
        )
        try:
            with self._compiling.one():
                return await asyncio.wait_for(job, GRAMMAR_TIMEOUT_S)
        except TimeoutError as error:
            message = f"the grammar takes longer than {GRAMMAR_TIMEOUT_S:g} s to compile"
            raise InvalidGrammarError(message) from error

    def _release(self, live: _Live) -> None:
        """Let the step thread drop a sequence that nobody reads any more."""
        if live.sequence is not None and not live.sequence.is_aborted:
            live.sequence.is_aborted = True
            self._batcher.wake()

    def _deliver(self, outcomes: list[tuple[Sequence, Outcome]]) -> None:
        """Pass a step's outcomes to the event loop; runs in the step thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._post, outcomes)

    @staticmethod
    def _post(outcomes: list[tuple[Sequence, Outcome]]) -> None:
        for sequence, outcome in outcomes:
            sequence.mailbox.put(outcome)

    async def abort(self, request_id: str) -> None:
        """End all sequences of that id; their consumers get their last delta at once."""
        for live in [live for live in self._live if live.request.request_id == request_id]:
            self._abort(live)

    def _abort(self, live: _Live) -> None:
        usage = live.sequence.usage() if live.sequence else Usage(len(live.request.prompt_ids), 0, 0)
        live.mailbox.put(Outcome(finish_reason=FinishReason.ABORT, usage=usage))
        self._release(live)

    async def health(self) -> bool:
        """Tell whether the step thread runs."""
        return self._batcher.is_healthy

    def limits(self) -> EngineLimits:
        """Return the fixed limits."""
        return self._limits

    def stats(self) -> EngineStats:
        """Return counters and gauges."""
        batcher = self._batcher
        placed = [live.sequence for live in self._live]
        return EngineStats(
            running=batcher.running,
            queued=max(0, len(self._live) - batcher.running),
            requests_total=self._requests_total,
            prompt_tokens_total=batcher.prompt_tokens,
            cached_tokens_total=batcher.cached_tokens,
            completion_tokens_total=batcher.completion_tokens,
            kv_tokens=self._limits.context_tokens * self._limits.max_sequences,
            kv_tokens_used=sum(sequence.position for sequence in placed if sequence is not None and sequence.slot),
            started_total=batcher.queued.count,
            queue_us_total=batcher.queued.microseconds,
            grammars_total=self._compiling.count,
            grammar_us_total=self._compiling.microseconds,
            images_total=self._encoding.count,
            image_us_total=self._encoding.microseconds,
        )

    async def close(self) -> None:
        """End every sequence, stop all threads and free all memory."""
        for live in list(self._live):
            self._abort(live)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._batcher.close()
        self._vision_thread.shutdown(cancel_futures=True)
        self._grammar_threads.shutdown(cancel_futures=True)
        if self._vision is not None:
            self._vision.close()
        self._model.close()

    def _encode(self, image: Image) -> Embeddings:
        if self._vision is None:
            message = "this engine has no vision tower"
            raise EngineUnavailableError(message)
        with self._encoding.one():
            return self._vision.encode(image)
