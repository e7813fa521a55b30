"""``VllmCore``: the engine protocol over vLLM's asynchronous engine.

vLLM batches, schedules, caches prefixes and masks in processes of its own; this class checks requests, writes them in
vLLM's terms, and turns its outputs into deltas. It belongs to the event loop in which ``generate`` is first called.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.admission import check_request
from engine.core import EngineDelta, EngineLimits, EngineRequest
from engine.errors import EngineLoadError, EngineUnavailableError, InvalidGrammarError, QueueFullError
from engine.grammar import GrammarCompiler, GrammarState
from engine.vllm.adapter_folder import AdapterCopy, AdapterFolder
from engine.vllm.adapters import Adapters, AdapterVersion
from engine.vllm.checkpoint import Checkpoint, linear_shapes
from engine.vllm.following import Following
from engine.vllm.guide import guide_of
from engine.vllm.preparing import prepare
from engine.vllm.sampling import check_limits, sampling_arguments
from engine.vllm.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from config.runtime import AdapterRuntime, EngineRuntime
    from engine.core import EngineStats
    from engine.images import ImageRun

GRAMMAR_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 1.0
"""How long vLLM's processes may take to end by themselves; nobody waits for their answers any more."""


@dataclass(slots=True, eq=False)
class _Live:
    """A request whose consumer is waiting; ``name`` is vLLM's for it, empty until it is handed over."""

    request: EngineRequest
    following: Following
    adapter: AdapterVersion | None = None
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    name: str = ""
    has_started: bool = False


class VllmCore:
    """Hosts one Gemma 4 model on vLLM."""

    def __init__(self, runtime: EngineRuntime) -> None:
        """Start vLLM and wait until the model is loaded, which takes minutes for a large one.

        Raises:
            ImportError: vLLM is not installed.
            EngineLoadError: the checkpoint is missing or damaged, or vLLM does not start.
        """
        prepared = prepare(runtime)
        checkpoint = prepared.checkpoint
        # Imported here: it imports vLLM, which reads variables that are set by now.
        from engine.vllm import library  # noqa: PLC0415

        self._library = library
        self._tokenizer = prepared.tokenizer
        self._statistics = Statistics(runtime.max_sequences)
        self._adapters = self._open_adapters(runtime.adapters, checkpoint)
        try:
            self._engine = library.start_engine(prepared.arguments, self._statistics.observed)
        except Exception as error:
            self._tokenizer.close()
            message = f"vLLM cannot load {runtime.checkpoint_path}: {error}"
            raise EngineLoadError(message) from error
        self._statistics.cache_tokens = library.cache_tokens(self._engine)
        vocab_size, context_tokens, self._image_token_id = library.model_facts(self._engine)
        self._grammars = GrammarCompiler(runtime.tokenizer_path, vocab_size)
        self._limits = EngineLimits(
            context_tokens=context_tokens,
            max_sequences=runtime.max_sequences,
            max_queued=runtime.max_queued,
            vocab_size=vocab_size,
            vision=checkpoint.has_vision,
            grammar=True,
            logprobs=True,
            core="vllm",
            model=checkpoint.name,
        )
        self._drafts = runtime.draft_path is not None
        self._threads = ThreadPoolExecutor(2, "engine-prepare")
        self._live: set[_Live] = set()
        self._numbers = itertools.count()
        self._is_closed = False

    def _open_adapters(self, adapters: AdapterRuntime | None, checkpoint: Checkpoint) -> Adapters | None:
        if adapters is None:
            return None
        try:
            folder = AdapterFolder(adapters, linear_shapes(checkpoint.config.parent))
        except OSError as error:
            message = f"there is no temporary folder for the adapters: {error}"
            raise EngineLoadError(message) from error

        def handle_of(copy: AdapterCopy) -> Any:
            return self._library.adapter_handle(copy.unique_name, copy.number, copy.folder)

        return Adapters(
            folder, adapters.refresh_s, handle_of, lambda handle: self._library.load_adapter(self._engine, handle)
        )

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield deltas; see ``engine.core.EngineCore.generate``."""
        runs = check_request(request, self.limits(), self._image_token_id)
        check_limits(request, drafts=self._drafts)
        self._admit()
        live = _Live(request, Following(request, None, self._tokenizer.end_id), self._taken(request))
        self._live.add(live)
        self._statistics.requests += 1
        try:
            prepared = await self._prepare_unless_aborted(live, runs)
            if prepared is None:
                yield live.following.aborted()
                return
            # Closed here at once and not when the interpreter finds the time: that is what ends the sequence in vLLM.
            async with contextlib.aclosing(self._run(live, *prepared)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._live.discard(live)
            self._statistics.add(live)
            if live.adapter is not None:
                live.adapter.leave()

    def _taken(self, request: EngineRequest) -> AdapterVersion | None:
        if self._adapters is None or request.adapter is None:
            return None
        return self._adapters.take(request.adapter)

    def _admit(self) -> None:
        if self._is_closed or self._library.has_died(self._engine):
            message = "vLLM has stopped"
            raise EngineUnavailableError(message)
        if len(self._live) >= self._limits.max_sequences + self._limits.max_queued:
            message = f"{self._limits.max_queued} requests are waiting already"
            raise QueueFullError(message)

    async def _prepare_unless_aborted(
        self, live: _Live, runs: tuple[ImageRun, ...]
    ) -> tuple[Mapping[str, Any], Any] | None:
        request = live.request
        if request.grammar is None and not request.images:
            return await self._prepare(live, runs)
        preparing = asyncio.ensure_future(self._prepare(live, runs))
        aborting = asyncio.ensure_future(live.aborted.wait())
        try:
            await asyncio.wait({preparing, aborting}, return_when=asyncio.FIRST_COMPLETED)
            return None if live.aborted.is_set() else preparing.result()
        finally:
            preparing.cancel()
            aborting.cancel()

    async def _prepare(self, live: _Live, runs: tuple[ImageRun, ...]) -> tuple[Mapping[str, Any], Any]:
        """Return the prompt and the parameters in vLLM's terms; pictures and grammars are prepared in threads."""
        request, loop = live.request, asyncio.get_running_loop()
        guide = None
        if request.grammar is not None:
            live.following.grammar = await self._compile(request)
            guide = guide_of(request)
        params = self._library.sampling_params(self._arguments(request), guide)
        arguments = (request.prompt_ids, request.images, runs, request.cache_salt)
        if not request.images:
            return self._library.prompt_of(*arguments), params
        return await loop.run_in_executor(self._threads, self._library.prompt_of, *arguments), params

    def _arguments(self, request: EngineRequest) -> dict[str, Any]:
        return sampling_arguments(request, self._tokenizer.end_id, drafts=self._drafts)

    async def _compile(self, request: EngineRequest) -> GrammarState:
        loop = asyncio.get_running_loop()
        begun = request.prompt_ids[len(request.prompt_ids) - request.grammar_begun :]
        job = loop.run_in_executor(
            self._threads, self._grammars.compile, request.grammar or "", request.stop_ids, begun
        )
        try:
            with self._statistics.compiling.one():
                return await asyncio.wait_for(job, GRAMMAR_TIMEOUT_S)
        except TimeoutError as error:
            message = f"the grammar takes longer than {GRAMMAR_TIMEOUT_S:g} s to compile"
            raise InvalidGrammarError(message) from error

    async def _run(self, live: _Live, prompt: Mapping[str, Any], params: Any) -> AsyncGenerator[EngineDelta, None]:
        """Hand the sequence to vLLM and yield its deltas; closing it ends the sequence there."""
        live.name = f"s{next(self._numbers)}"
        adapter = None if live.adapter is None else live.adapter.handle
        outputs = self._library.generate(self._engine, prompt, params, live.name, live.request.priority, adapter)
        async with contextlib.aclosing(outputs):
            while True:
                with self._library.translated():
                    output = await anext(outputs)
                self._note_start(live, output)
                # An abort that came before vLLM knew the sequence was lost on it.
                delta = live.following.aborted() if live.aborted.is_set() else live.following.delta_of(output)
                if delta is not None:
                    yield delta
                    if delta.finish_reason is not None:
                        return

    def _note_start(self, live: _Live, output: Any) -> None:
        waited_s = None if live.has_started else self._library.queue_seconds(output)
        if waited_s is not None:
            live.has_started = True
            self._statistics.queued.add(waited_s)

    async def abort(self, request_id: str) -> None:
        """End all sequences of that id; their consumers get their last delta at once."""
        await self._abort([live for live in self._live if live.request.request_id == request_id])

    async def _abort(self, lives: list[_Live]) -> None:
        for live in lives:
            live.aborted.set()
        with contextlib.suppress(EngineUnavailableError), self._library.translated():
            # vLLM answers each with a last output before it tells its engine process.
            await self._engine.abort([live.name for live in lives if live.name])

    async def health(self) -> bool:
        """Tell whether vLLM's processes run; the first time, when the adapters that are there have been loaded."""
        if self._adapters is not None and not self._is_closed:
            await self._adapters.settled()
        return not (self._is_closed or self._library.has_died(self._engine))

    def limits(self) -> EngineLimits:
        """Return the limits, with the adapters of this moment."""
        return self._limits if self._adapters is None else replace(self._limits, adapters=self._adapters.names)

    def stats(self) -> EngineStats:
        """Return counters and gauges."""
        return self._statistics.report(self._live)

    async def close(self) -> None:
        """End every sequence and vLLM's processes."""
        self._is_closed = True
        await self._abort(list(self._live))
        if self._adapters is not None:
            await self._adapters.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # It takes the end of its processes for a crash, and says so at length.
        logging.getLogger("vllm").setLevel(logging.CRITICAL)
        # Left alone, its worker outlives SIGTERM by seconds; nothing in these processes is worth waiting for.
        for process in multiprocessing.active_children():
            process.kill()
        self._engine.shutdown(timeout=STOP_TIMEOUT_S)
        # Its destructor shuts down once more, which must not wait for the interpreter's end.
        del self._engine
        self._threads.shutdown(cancel_futures=True)
        self._tokenizer.close()
