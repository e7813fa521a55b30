"""One ``llama_context``: the KV memory of all sequences, and one decode call at a time.

Not thread-safe: after construction only the step thread uses it. Positions are indices into a sequence's key list, so
image embeddings and token ids count alike.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import EngineLoadError
from engine.llama_cpp.library import LOG, MAX_SEQUENCES, load_library
from engine.llama_cpp.structs import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engine.llama_cpp.model import Model


SLIDING_LAYERS_ONLY = 1
"""``LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY``."""
SLIDING_PADDING = 256


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """Sizes of a context: tokens per sequence, number of sequences, tokens per compute batch, CPU threads."""

    context_tokens: int
    max_sequences: int
    batch_tokens: int
    threads: int


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive prompt or drawn ids of one sequence to decode; ``output`` asks for the logits after the last one."""

    sequence: int
    position: int
    token_ids: Sequence[int]
    output: bool


class DecodeError(Exception):
    """llama.cpp refused or failed a batch; ``code`` is its return value."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}: {LOG.first_error()}")
        self.code = code


class Context:
    """KV memory for ``max_sequences`` sequences, each in its own stream of ``context_tokens`` cells."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        """Allocate the memory.

        Raises:
            EngineLoadError: the sizes are impossible or memory is short.
        """
        if options.max_sequences > MAX_SEQUENCES:
            message = f"max_sequences is {options.max_sequences}; llama.cpp holds at most {MAX_SEQUENCES}"
            raise EngineLoadError(message)
        self._library = load_library()
        self._model = model
        self.batch_tokens = options.batch_tokens
        self.handle = self._create(options)
        self._memory = self._library.llama_get_memory(self.handle)
        self.context_tokens = min(int(self._library.llama_n_ctx_seq(self.handle)), options.context_tokens)
        self.sliding_tokens = self._sliding_tokens(options.batch_tokens)
        self._allocate_batch(options.batch_tokens)

    def _create(self, options: ContextOptions) -> int:
        params = self._library.llama_context_default_params()
        params.n_ctx = options.context_tokens * options.max_sequences
        params.n_batch = options.batch_tokens
        params.n_ubatch = options.batch_tokens
        params.n_seq_max = options.max_sequences
        # One row of logits per sequence at most. The default reserves one per batch token: 1.3 GB at 262,144 ids.
        params.n_outputs_max = options.max_sequences
        params.n_threads = options.threads
        params.n_threads_batch = options.threads
        params.swa_full = False
        params.kv_unified = False
        LOG.clear()
        handle = self._library.llama_init_from_model(self._model.handle, params)
        if not handle:
            message = (
                f"no context of {options.max_sequences} x {options.context_tokens} tokens "
                f"can be allocated: {LOG.first_error()}"
            )
            raise EngineLoadError(message)
        return int(handle)

    def _sliding_tokens(self, batch_tokens: int) -> int:
        """Return how many places the sliding layers keep per sequence (``llama_kv_cache_iswa``'s formula)."""
        wanted = self._model.sliding_window + batch_tokens
        padded = -(-wanted // SLIDING_PADDING) * SLIDING_PADDING
        return min(padded, int(self._library.llama_n_ctx_seq(self.handle)))

    def _allocate_batch(self, size: int) -> None:
        self._tokens = np.zeros(size, dtype=np.int32)
        self._positions = np.zeros(size, dtype=np.int32)
        self._sequence_ids = np.zeros(size, dtype=np.int32)
        self._outputs = np.zeros(size, dtype=np.int8)
        self._sequence_counts = np.ones(size, dtype=np.int32)
        # llama_batch wants one pointer per token; entry i points at _sequence_ids[i] for ever.
        base = self._sequence_ids.ctypes.data
        stride = self._sequence_ids.itemsize
        self._sequence_pointers = np.arange(size, dtype=np.uint64) * np.uint64(stride) + np.uint64(base)
        self._batch = Batch(
            token=self._tokens.ctypes.data,
            pos=self._positions.ctypes.data,
            n_seq_id=self._sequence_counts.ctypes.data,
            seq_id=self._sequence_pointers.ctypes.data,
            logits=self._outputs.ctypes.data,
        )

    def decode_tokens(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        """Decode ids of several sequences in one call.

        Returns:
            Logits [number of spans that asked for output, vocab_size], in the order of the spans. The array is a view
            of llama.cpp's buffer: writable, valid until the next decode.

        Raises:
            DecodeError: llama.cpp failed; the memory of the named sequences is undefined then.
        """
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[int] = []
        for span in spans:
            length = len(span.token_ids)
            tokens.extend(span.token_ids)
            positions.extend(range(span.position, span.position + length))
            sequences.extend([span.sequence] * length)
            outputs.extend([0] * (length - 1))
            outputs.append(span.output)
        count = len(tokens)
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._sequence_ids[:count] = sequences
        self._outputs[:count] = outputs
        return self._run(self._batch, count, sum(outputs))

    def decode_embeddings(
        self, sequence: int, position: int, embeddings: NDArray[np.float32], *, output: bool
    ) -> NDArray[np.float32]:
        """Decode one image block [tokens, embedding_size] of one sequence in one piece.

        Gemma 4 lets the tokens of an image see each other in both directions in its sliding layers only. llama.cpp's
        gemma4 graph does just that when causal attention is switched off (its ``LLAMA_NON_CAUSAL_TYPE_SWA_ONLY``).

        Returns:
            Logits [1, vocab_size] after the last token, or an empty array when ``output`` is false.

        Raises:
            DecodeError: llama.cpp failed.
        """
        count = len(embeddings)
        rows = np.ascontiguousarray(embeddings, dtype=np.float32)
        self._positions[:count] = np.arange(position, position + count)
        self._sequence_ids[:count] = sequence
        self._outputs[:count] = 0
        self._outputs[count - 1] = output
        batch = Batch(
            embd=rows.ctypes.data,
            pos=self._batch.pos,
            n_seq_id=self._batch.n_seq_id,
            seq_id=self._batch.seq_id,
            logits=self._batch.logits,
        )
        self._library.llama_set_causal_attn(self.handle, False)  # noqa: FBT003 - a C function has no keywords
        try:
            return self._run(batch, count, int(output))
        finally:
            self._library.llama_set_causal_attn(self.handle, True)  # noqa: FBT003

    def _run(self, batch: Batch, count: int, outputs: int) -> NDArray[np.float32]:
        batch.n_tokens = count
        code = self._library.llama_decode(self.handle, batch)
        if code != 0:
            raise DecodeError(code)
        if not outputs:
            return np.empty((0, self._model.vocab_size), dtype=np.float32)
        pointer: Any = self._library.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(outputs, self._model.vocab_size))

    def first_position(self, sequence: int) -> int:
        """Return the lowest position that the sliding layers still hold, -1 when the sequence is empty."""
        return int(self._library.llama_memory_seq_pos_min(self._memory, sequence))

    def truncate(self, sequence: int, position: int) -> None:
        """Forget everything of a sequence from ``position`` on."""
        self._library.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def copy(self, source: int, target: int) -> None:
        """Replace a sequence's memory by another's; whole, because streams can only be copied whole."""
        self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def snapshot_bytes(self, sequence: int) -> int:
        """Return the size of a snapshot of the sliding layers' memory."""
        return int(self._library.llama_state_seq_get_size_ext(self.handle, sequence, SLIDING_LAYERS_ONLY))

    def snapshot(self, sequence: int, size: int) -> NDArray[np.uint8]:
        """Copy the sliding layers' memory of a sequence, ``size`` bytes."""
        data = np.empty(size, dtype=np.uint8)
        written = self._library.llama_state_seq_get_data_ext(
            self.handle, data.ctypes.data, size, sequence, SLIDING_LAYERS_ONLY
        )
        return data[:written]

    def restore(self, sequence: int, data: NDArray[np.uint8]) -> None:
        """Put a snapshot back; what follows it must be cut off with ``truncate``."""
        self._library.llama_state_seq_set_data_ext(
            self.handle, data.ctypes.data, data.nbytes, sequence, SLIDING_LAYERS_ONLY
        )

    def close(self) -> None:
        """Free the memory."""
        if self.handle:
            self._library.llama_free(ctypes.c_void_p(self.handle))
            self.handle = 0
