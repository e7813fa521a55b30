"""Estimates how much main memory the CPU engine needs for a model, from its shape alone.

Pure arithmetic over Gemma 4's published shape: sliding layers keep a window, global layers keep every token. The
figures are bytes of the engine process plus a fixed share for the Python processes. ``launcher.memory_gpu`` does the
same for engines on GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from config.variants import GLOBAL_HEAD_DIM, SLIDING_HEAD_DIM, TRAINED_CONTEXT, VOCABULARY, WINDOW, Variant
from launcher.gguf_header import GgufHeader

ARCHITECTURE: Final = "gemma4"
CACHE_ELEMENT_BYTES: Final = 2
"""Keys and values are kept as 16-bit floats."""
BATCH_TOKENS: Final = 1280
"""Tokens of one compute batch: the largest picture (1,120) must fit in one piece, rounded up to a multiple of 256."""
WINDOW_PADDING: Final = 256
PROCESS_BYTES: Final = 300 * 1024 * 1024
"""Two Python processes with their libraries, measured at 250 MiB together."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimate needs to know of a model.

    Attributes:
        cache_bytes_per_token: bytes per token and layer for keys and values, one entry per layer.
        sliding: whether each layer looks back ``window`` tokens only.
    """

    layers: int
    trained_context: int
    embedding: int
    feed_forward: int
    experts: int
    vocab: int
    window: int
    cache_bytes_per_token: tuple[int, ...]
    sliding: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes by what they are for: of main memory for the CPU engine, of each GPU for the others.

    Attributes:
        cache: keys and values of the sequences.
        activations: intermediate results of one batch, logits included.
        vision: intermediate results of the vision tower; its weights count as weights.
        graphs: CUDA graphs.
        overhead: processes, the CUDA context and libraries.
    """

    weights: int
    cache: int
    activations: int = 0
    vision: int = 0
    graphs: int = 0
    overhead: int = 0

    @property
    def buffers(self) -> int:
        """Return everything that is neither weights nor cache."""
        return self.activations + self.vision + self.graphs + self.overhead

    @property
    def total(self) -> int:
        """Return everything together."""
        return self.weights + self.cache + self.buffers


def model_shape(header: GgufHeader) -> ModelShape:
    """Read the shape of a Gemma 4 text model from its header; keys that are missing count as 0 or their usual value."""
    layers = _value(header, "block_count")
    heads = header.per_layer(_key("attention.head_count_kv"), layers, 1)
    pattern = tuple(bool(flag) for flag in header.per_layer(_key("attention.sliding_window_pattern"), layers, 0))
    wide = _value(header, "attention.key_length") + _value(header, "attention.value_length")
    narrow = _value(header, "attention.key_length_swa") + _value(header, "attention.value_length_swa") or wide
    per_token = tuple(
        count * (narrow if sliding else wide) * CACHE_ELEMENT_BYTES
        for count, sliding in zip(heads, pattern, strict=True)
    )
    active = _value(header, "expert_used_count") * _value(header, "expert_feed_forward_length")
    return ModelShape(
        layers=layers,
        trained_context=_value(header, "context_length"),
        embedding=_value(header, "embedding_length"),
        feed_forward=max(header.per_layer(_key("feed_forward_length"), max(layers, 1), 0)) + active,
        experts=_value(header, "expert_count"),
        vocab=header.lengths.get("tokenizer.ggml.tokens", 0),
        window=_value(header, "attention.sliding_window"),
        cache_bytes_per_token=per_token,
        sliding=pattern,
    )


def variant_shape(variant: Variant) -> ModelShape:
    """Return the shape of a published model, for estimates before any file is there."""
    return ModelShape(
        layers=variant.layers,
        trained_context=TRAINED_CONTEXT,
        embedding=variant.hidden,
        feed_forward=variant.mlp_width + variant.active_experts * variant.expert_width,
        experts=variant.experts,
        vocab=VOCABULARY,
        window=WINDOW,
        cache_bytes_per_token=tuple(
            2
            * (variant.sliding_kv_heads * SLIDING_HEAD_DIM if sliding else variant.global_kv_heads * GLOBAL_HEAD_DIM)
            * CACHE_ELEMENT_BYTES
            for sliding in variant.pattern
        ),
        sliding=variant.pattern,
    )


def estimate_memory(shape: ModelShape, weight_bytes: int, context_tokens: int, sequences: int) -> MemoryEstimate:
    """Estimate the memory for so many sequences of so many tokens, each with a cache of its own."""
    window = min(context_tokens, _padded(shape.window + BATCH_TOKENS))
    cache = sequences * sum(
        size * (window if sliding else context_tokens)
        for size, sliding in zip(shape.cache_bytes_per_token, shape.sliding, strict=True)
    )
    # Activations of one batch, 32 bits each: about eight rows as wide as the embedding, four as wide as the widest MLP.
    activations = BATCH_TOKENS * 4 * (8 * shape.embedding + 4 * shape.feed_forward)
    logits = sequences * shape.vocab * 4 * 2
    return MemoryEstimate(weight_bytes, cache, activations=activations + logits, overhead=PROCESS_BYTES)


def _key(name: str) -> str:
    return f"{ARCHITECTURE}.{name}"


def _value(header: GgufHeader, name: str) -> int:
    return header.integer(_key(name), 0) or 0


def _padded(tokens: int) -> int:
    return -(-tokens // WINDOW_PADDING) * WINDOW_PADDING


def gib(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
