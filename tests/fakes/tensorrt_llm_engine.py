"""What stands behind the stand-in ``LLM``: a batcher over logits drawn from a hash of the sequence so far.

It does what TensorRT-LLM documents: stop ids, lengths, cancelled sequences, cumulative outputs with ``*_diff``
properties, guided decoding with llguidance where only the tokenizer's own end token may follow a grammar, and a
processor that expands and sizes pictures as Gemma 4's does unless it is told otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

CELL = 48
BLOCK_TOKENS = 32
CACHE_BLOCKS = 100
FREQUENT_IDS = 4
FREQUENT_LEAD = 6.0


class StandInSequence:
    """One request; ``RequestOutput`` and ``CompletionOutput`` show parts of it."""

    def __init__(self, engine: StandInEngine, ids: list[int], params: Any, pictures: bytes) -> None:
        self.engine, self.params, self.pictures = engine, params, pictures
        self.prompt, self.drawn = list(ids), []
        self.logprobs: list[dict[int, Any]] = []
        self.token_ids_diff: list[int] = []
        self.logprobs_diff: list[dict[int, Any]] = []
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.finished, self.cached_tokens, self._aborted = False, 0, False
        self.outputs = [engine.classes.CompletionOutput(self)]
        self._matcher = self._compile(params.guided_decoding)
        self._random = np.random.default_rng(params.seed)
        self._wakeup = asyncio.Event()

    def _compile(self, guide: Any) -> LLMatcher | None:
        if guide is None:
            return None
        assert self.engine.arguments["guided_decoding_backend"] == "llguidance"
        matcher = LLMatcher(self.engine.lark_tokenizer, LLMatcher.grammar_from_lark(guide.grammar), log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def aborted(self) -> bool:
        return self._aborted

    def abort(self) -> None:
        self._aborted = True
        self.engine.aborts += 1
        self._wakeup.set()

    def __aiter__(self) -> StandInSequence:
        return self

    async def __anext__(self) -> Any:
        if self.finished:
            raise StopAsyncIteration
        await self._turn()
        self.token_ids_diff, self.logprobs_diff = [], []
        if self._aborted:
            self.finished, self.finish_reason = True, "cancelled"
        self.engine.note_step()
        for _ in range(self.engine.burst):
            if not self.finished:
                self._step()
        if self.finished:
            self.engine.running.discard(self)
        return self.engine.classes.RequestOutput(self)

    async def _turn(self) -> None:
        """Wait as the engine does: until the batch has a step, the sequence is aborted, or the engine dies."""
        await asyncio.sleep(0)
        while self.engine.is_held(self) and not (self._aborted and self.engine.ends_aborted):
            self._wakeup.clear()
            self.engine.blocked.add(self)
            await self._wakeup.wait()
            self.engine.blocked.discard(self)
        if self.engine.failures:
            failure = self.engine.failures.pop(0)
            if isinstance(failure, str):
                self.error, self.finished = failure, True
                return
            raise failure
        self.engine.count_response()
        if self.engine.is_dead:
            raise RuntimeError("Executor worker died\nwith a long trace")

    def wake(self) -> None:
        self._wakeup.set()

    def _step(self) -> None:
        raw = self.engine.logits(self.prompt, self.drawn, self.pictures)
        row = self._adjusted(raw.copy())
        if self._matcher is not None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            row[~np.unpackbits(bits, bitorder="little")[: len(row)].astype(bool)] = -np.inf
        token_id = self._draw(row)
        if self._matcher is not None and not self._matcher.is_stopped():
            self._matcher.consume_token(token_id)
        self._add(token_id, raw)
        if token_id in (self.params.stop_token_ids or ()) or (
            token_id == self.params.end_id and not self.params.ignore_eos
        ):
            self.finished, self.finish_reason = True, "stop"
            if not self.params.include_stop_str_in_output:
                self.token_ids_diff.pop()
        elif len(self.drawn) >= self.params.max_tokens:
            self.finished, self.finish_reason = True, "length"

    def _adjusted(self, row: np.ndarray) -> np.ndarray:
        params = self.params
        if params.embedding_bias is not None:
            row += params.embedding_bias.array
        if params.repetition_penalty != 1.0:
            seen = list({*self.prompt, *self.drawn})
            row[seen] = np.where(row[seen] > 0, row[seen] / params.repetition_penalty, row[seen])
            row[seen] = np.where(row[seen] <= 0, row[seen] * params.repetition_penalty, row[seen])
        for token_id in [*self.prompt, *self.drawn][params.prompt_ignore_length :]:
            row[token_id] -= params.frequency_penalty
        for token_id in {*[*self.prompt, *self.drawn][params.prompt_ignore_length :]}:
            row[token_id] -= params.presence_penalty
        return row

    def _draw(self, row: np.ndarray) -> int:
        params = self.params
        if params.temperature == 0.0 or params.top_k == 1:
            return int(row.argmax())
        order = np.argsort(-row, kind="stable")[: params.top_k or len(row)]
        weights = np.exp((row[order] - row[order[0]]) / params.temperature)
        weights[weights < params.min_p] = 0.0
        sums = weights.cumsum()
        weights[sums - weights >= params.top_p * sums[-1]] = 0.0
        return int(order[self._random.choice(len(order), p=weights / weights.sum())])

    def _add(self, token_id: int, raw: np.ndarray) -> None:
        self.drawn.append(token_id)
        self.token_ids_diff.append(token_id)
        if self.params.logprobs is None:
            return
        values = raw - raw.max()
        values -= np.log(np.exp(values).sum())
        likely = [int(i) for i in np.argsort(-values, kind="stable")[: self.params.logprobs]]
        entry = {i: self.engine.classes.Logprob(logprob=float(values[i])) for i in {*likely, token_id}}
        self.logprobs.append(entry)
        self.logprobs_diff.append(entry)


class StandInEngine:
    """The scripted library. A test sets its switches and looks at what it was asked."""

    def __init__(self, arguments: dict[str, Any], classes: Any) -> None:
        self.arguments, self.classes = arguments, classes
        tokenizer = Path(arguments["model"]) / "tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.lark_tokenizer = LLTokenizer(tokenizer.read_text(encoding="utf-8"), n_vocab=self.vocab_size)
        self.input_processor = classes.input_processor(
            processor=SimpleNamespace(image_processor=classes.image_processor(do_resize=True, max_soft_tokens=280)),
            multimodal_hashing_supported=None,
        )
        self.running: set[StandInSequence] = set()
        self.blocked: set[StandInSequence] = set()
        """Held sequences whose reader waits."""
        self.requests: list[tuple[Any, Any, str | None]] = []
        self.aborts = 0
        self.burst = 1
        """Ids of one response."""
        self.held_after: int | None = None
        """Sequences stop after so many ids, until this is None again."""
        self.ends_aborted = True
        """Whether an aborted sequence gets its last response although it is held."""
        self.failures: list[Exception | str] = []
        """Raised by the next responses, one each; a text is what they report instead."""
        self.refusals: list[Exception] = []
        """Raised by the next submissions, one each."""
        self.is_dead = False
        self.told_steps: list[dict[str, Any]] = []
        """What is said of steps until somebody asks."""
        self.responses_left: int | None = None
        """The workers are lost after so many responses."""

    def is_held(self, sequence: StandInSequence) -> bool:
        held = self.held_after is not None and len(sequence.drawn) >= self.held_after
        return held and not self.is_dead and not self.failures

    def release(self) -> None:
        """Let every sequence go on."""
        self.held_after = None
        self.wake()

    def die(self) -> None:
        """Lose the workers."""
        self.is_dead = True
        self.wake()

    def count_response(self) -> None:
        """Take one from the responses that are left."""
        if self.responses_left is not None:
            self.responses_left -= 1
            self.is_dead = self.is_dead or self.responses_left < 0

    def wake(self) -> None:
        for sequence in list(self.running):
            sequence.wake()

    def generate_async(
        self, inputs: Any, sampling_params: Any, streaming: bool = False, cache_salt: str | None = None
    ) -> Any:
        asyncio.get_running_loop()
        assert streaming
        if self.refusals:
            raise self.refusals.pop(0)
        if self.is_dead:
            raise RuntimeError("LLM is shutting down")
        assert len(self.running) < self.arguments["max_batch_size"], "the library's own queue was used"
        self.requests.append((inputs, sampling_params, cache_salt))
        ids = inputs if isinstance(inputs, list) else inputs.prompt_token_ids
        assert len(ids) + sampling_params.max_tokens <= self.arguments["max_seq_len"]
        pictures = b"" if isinstance(inputs, list) else inputs.multimodal_params
        sequence = StandInSequence(self, ids, sampling_params, pictures)
        self.running.add(sequence)
        return self.classes.RequestOutput(sequence)

    def preprocess(self, inputs: dict[str, Any]) -> Any:
        text, pictures = inputs["prompt"], inputs.get("multi_modal_data", {}).get("image", [])
        counts = iter([self._soft_tokens(picture) for picture in pictures])
        parts = text.split("<|image|>") if pictures else [text]
        whole = parts[0]
        for part in parts[1:]:
            whole += f"<|image>{'<|image|>' * next(counts)}<image|>{part}"
        ids = self._tokenizer.encode(whole).ids
        digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).digest()
        return self.classes.PreprocessedInputs(prompt_token_ids=ids, multimodal_params=digest)

    def _soft_tokens(self, picture: Any) -> int:
        sizing = self.input_processor.processor.image_processor
        rows, columns = picture.height // CELL, picture.width // CELL
        factor = (sizing.max_soft_tokens / (rows * columns)) ** 0.5
        resized = max(1, int(rows * factor)) * max(1, int(columns * factor))
        count = resized if sizing.do_resize else rows * columns
        if count > sizing.max_soft_tokens:
            raise ValueError("the picture does not fit max_soft_tokens")
        if count * 9 > self.arguments["encoder_max_num_tokens"]:
            raise ValueError("raise encoder_max_num_tokens")
        if self.input_processor.multimodal_hashing_supported is not False and count != resized:
            raise ValueError("Multimodal hashing failed")
        return count

    def logits(self, prompt: list[int], drawn: list[int], pictures: bytes) -> np.ndarray:
        """Return the row [vocab_size] that follows. A few ids are often likely, so sequences repeat, as in language."""
        content = np.array([*prompt, *drawn], dtype=np.int64).tobytes() + pictures
        seed = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        row = np.random.default_rng(seed).normal(size=self.vocab_size).astype(np.float32) * 2
        frequent = self.vocab_size // 2
        row[frequent : frequent + FREQUENT_IDS] += FREQUENT_LEAD
        return row

    def note_step(self) -> None:
        """Say of a step what TensorRT-LLM does; it forgets the oldest when nobody asks."""
        if self.arguments.get("enable_iter_perf_stats"):
            held = [-(-(len(one.prompt) + len(one.drawn)) // BLOCK_TOKENS) for one in self.running]
            cache = {"maxNumBlocks": CACHE_BLOCKS, "usedNumBlocks": sum(held), "tokensPerBlock": BLOCK_TOKENS}
            self.told_steps = [*self.told_steps[-99:], {"iter": 0, "kvCacheStats": cache}, {"iter": 1}]

    def get_stats_async(self, timeout: float) -> AsyncIterator[dict[str, Any]]:
        if self.is_dead:
            raise RuntimeError("Executor worker died")
        assert timeout > 0
        return self._tell_steps()

    async def _tell_steps(self) -> AsyncIterator[dict[str, Any]]:
        while self.told_steps:
            yield self.told_steps.pop(0)

    def _check_health(self) -> bool:
        return not self.is_dead

    def shutdown(self) -> None:
        self.is_dead = True
