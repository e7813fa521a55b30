"""The step thread: continuous batching of all sequences over one llama.cpp context.

Each step decodes one id of every running sequence together with a bounded piece of waiting prompts, draws the next ids
and hands them to the event loop in one call. Image blocks are decoded on their own, whole, one per step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from engine.core import FinishReason, TokenLogprob
from engine.errors import EngineError, EngineUnavailableError
from engine.llama_cpp.context import Context, DecodeError, Span
from engine.llama_cpp.prefill_budget import PrefillBudget
from engine.llama_cpp.sampling import RawLogprobs, draw, raw_logprobs
from engine.llama_cpp.sequence import Outcome
from engine.llama_cpp.slot_pool import SlotPool, resident_of
from engine.spent import Spent

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from engine.llama_cpp.sequence import Sequence

    Deliver = Callable[[list[tuple[Sequence, Outcome]]], None]

logger = logging.getLogger(__name__)


class Batcher:
    """Owns the context and the slots; everything else talks to it through ``submit``, ``wake`` and ``close``."""

    def __init__(self, context: Context, max_sequences: int, window: int, deliver: Deliver) -> None:
        """Start the step thread.

        Args:
            context: used by the step thread only from now on.
            max_sequences: number of slots.
            window: sliding window of the model in tokens.
            deliver: called in the step thread with the outcomes of a step.
        """
        self._context = context
        self._deliver = deliver
        self._slots = SlotPool(context, max_sequences, window)
        self._running: list[Sequence] = []
        self._waiting: deque[Sequence] = deque()
        self._budget = PrefillBudget(context.batch_tokens)
        self._condition = threading.Condition()
        self._is_closing = False
        self._clock = 0
        self.is_healthy = True
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.queued = Spent()
        """Waiting for a slot, of the sequences that have got one."""
        self._outcomes: list[tuple[Sequence, Outcome]] = []
        self._thread = threading.Thread(target=self._run, name="engine-step", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Number of sequences that hold a slot."""
        return len(self._running)

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; higher priority first, then in order of arrival.

        Raises:
            EngineUnavailableError: the step thread has ended.
        """
        sequence.queued_at = time.perf_counter()
        with self._condition:
            if not self.is_healthy or self._is_closing:
                message = "the engine has stopped"
                raise EngineUnavailableError(message)
            place = len(self._waiting)
            while place and self._waiting[place - 1].request.priority < sequence.request.priority:
                place -= 1
            self._waiting.insert(place, sequence)
            self._condition.notify()

    def wake(self) -> None:
        """Make the step thread look at abort marks."""
        with self._condition:
            self._condition.notify()

    def close(self, timeout_s: float = 60.0) -> None:
        """Stop the step thread after its current step and free the context."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._context.close()

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._step()
                self._flush()
        except Exception:
            logger.exception("the step thread failed")
        finally:
            self.is_healthy = False
            error = EngineUnavailableError("the engine has stopped")
            with self._condition:
                lost = [*self._running, *self._waiting]
                self._waiting.clear()
            self._running = []
            self._outcomes.extend((sequence, Outcome(error=error)) for sequence in lost)
            self._flush()

    def _wait_for_work(self) -> bool:
        with self._condition:
            while not (self._is_closing or self._running or self._waiting):
                self._condition.wait()
            return not self._is_closing

    def _flush(self) -> None:
        if self._outcomes:
            outcomes, self._outcomes = self._outcomes, []
            self._deliver(outcomes)

    def _step(self) -> None:
        self._drop_aborted()
        self._admit()
        image = next((s for s in self._running if s.is_prefilling and s.next_image()), None)
        if image is not None:
            self._prefill_image(image)
        self._decode(image)

    def _drop_aborted(self) -> None:
        with self._condition:
            if any(sequence.is_aborted for sequence in self._waiting):
                self._waiting = deque(s for s in self._waiting if not s.is_aborted)
        for sequence in [s for s in self._running if s.is_aborted]:
            self._release(sequence)

    def _admit(self) -> None:
        with self._condition:
            waiting = tuple(self._waiting)
        if not waiting:
            return
        residents = [resident_of(sequence) for sequence in self._running]
        for sequence in waiting:
            if not self._slots.has_free:
                break
            if not self._slots.place(sequence, residents):
                continue
            residents.append(resident_of(sequence))
            with self._condition:
                self._waiting.remove(sequence)
            self.queued.add(time.perf_counter() - sequence.queued_at)
            self.prompt_tokens += sequence.prompt_length
            self.cached_tokens += sequence.cached
            self._running.append(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._slots.release(sequence)

    def _prefill_image(self, sequence: Sequence) -> None:
        found = sequence.next_image()
        if found is None:
            return
        run, embeddings = found
        is_last = run.start + run.count == sequence.prompt_length
        try:
            logits = self._context.decode_embeddings(sequence.held_slot.index, run.start, embeddings, output=is_last)
        except DecodeError as error:
            self._fail([sequence], error)
            return
        sequence.position += run.count
        self._slots.save(sequence)
        if is_last:
            self._draw([sequence], logits)

    def _decode(self, image: Sequence | None) -> None:
        """Decode one id per running sequence and, within the budget, pieces of prompts; then draw."""
        spans: list[Span] = []
        sequences: list[Sequence] = []
        running = [s for s in self._running if s.drawn]
        for sequence in running:
            sequences.append(sequence)
            spans.append(Span(sequence.held_slot.index, sequence.position, (sequence.drawn[-1],), output=True))
        room = self._context.batch_tokens - len(spans)
        budget = min(room, self._budget.tokens(running=bool(running)))
        prompt_tokens = 0
        for sequence in self._running:
            if sequence is image or not sequence.is_prefilling or prompt_tokens >= budget or sequence.next_image():
                continue
            ids = sequence.next_text(budget - prompt_tokens)
            is_last = sequence.position + len(ids) == sequence.prompt_length
            spans.append(Span(sequence.held_slot.index, sequence.position, ids, output=is_last))
            sequences.append(sequence)
            prompt_tokens += len(ids)
        if spans:
            self._run_batch(sequences, spans, prompt_tokens)

    def _run_batch(self, sequences: list[Sequence], spans: list[Span], prompt_tokens: int) -> None:
        # llama.cpp computes sequences with consecutive ids together, in the order given.
        order = sorted(range(len(spans)), key=lambda i: spans[i].sequence)
        sequences = [sequences[i] for i in order]
        spans = [spans[i] for i in order]
        started = time.perf_counter()
        try:
            logits = self._context.decode_tokens(spans)
        except DecodeError as error:
            self._fail(sequences, error)
            return
        self._budget.record(prompt_tokens, time.perf_counter() - started)
        ready = []
        for sequence, span in zip(sequences, spans, strict=True):
            sequence.position += len(span.token_ids)
            self._slots.save(sequence)
            if span.output:
                ready.append(sequence)
        if ready:
            self._draw(ready, logits)

    def _draw(self, sequences: list[Sequence], logits: NDArray[np.float32]) -> None:
        """Draw an id for each sequence from its row of logits, and end sequences that are complete."""
        raw: dict[int, RawLogprobs] = {}
        drawing: list[int] = []
        for row, sequence in enumerate(sequences):
            if sequence.request.logprobs is not None:
                raw[row] = raw_logprobs(logits[row], sequence.request.logprobs)
            if self._constrain(sequence, logits[row]):
                drawing.append(row)
        rows = logits if len(drawing) == len(sequences) else logits[drawing]
        ids = draw(rows, [sequences[row].sampler for row in drawing]) if drawing else []
        for row, token_id in zip(drawing, ids, strict=True):
            self._accept(sequences[row], token_id, raw[row].of(token_id) if row in raw else None)

    def _constrain(self, sequence: Sequence, row: NDArray[np.float32]) -> bool:
        """Apply the sequence's own rules to its logits; end it, and return False, when nothing is left to draw."""
        sampler, grammar = sequence.sampler, sequence.grammar
        if sampler.adjusts:
            sampler.adjust(row)
        if grammar is None:
            return True
        try:
            if grammar.mask(row, stops_allowed=sampler.stops_allowed):
                return True
        except EngineError as error:
            self._end(sequence, Outcome(error=error))
            return False
        self._end(sequence, Outcome(finish_reason=FinishReason.STOP, usage=sequence.usage()))
        return False

    def _accept(self, sequence: Sequence, token_id: int, logprob: TokenLogprob | None) -> None:
        sequence.drawn.append(token_id)
        sequence.sampler.record(token_id)
        self.completion_tokens += 1
        try:
            reason = self._finish_reason(sequence, token_id)
        except EngineError as error:
            self._end(sequence, Outcome(error=error))
            return
        is_first = len(sequence.drawn) == 1
        outcome = Outcome(token_id, logprob, reason, sequence.usage() if reason or is_first else None)
        if reason:
            self._end(sequence, outcome)
        else:
            self._outcomes.append((sequence, outcome))

    def _finish_reason(self, sequence: Sequence, token_id: int) -> FinishReason | None:
        request, grammar = sequence.request, sequence.grammar
        if token_id in request.stop_ids:
            return FinishReason.STOP
        if grammar is not None:
            grammar.accept(token_id)
            if grammar.is_finished:
                return FinishReason.STOP
        total = sequence.prompt_length + len(sequence.drawn)
        if len(sequence.drawn) >= request.max_tokens or total >= self._context.context_tokens:
            return FinishReason.LENGTH
        return None

    def _end(self, sequence: Sequence, outcome: Outcome) -> None:
        self._outcomes.append((sequence, outcome))
        self._release(sequence)

    def _fail(self, sequences: list[Sequence], error: DecodeError) -> None:
        logger.error("%s", error)
        for sequence in sequences:
            slot = sequence.held_slot
            self._end(sequence, Outcome(error=EngineError("the engine failed to compute this sequence")))
            self._slots.clear(slot)
