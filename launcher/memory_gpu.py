"""Estimates how much memory an engine needs on each of its GPUs, and what fits into a given amount.

Pure arithmetic. Weights and cache follow from the published architecture; the rest are estimates on the cautious side
that nobody has measured for these models yet: docs/profiles.md says which is which.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from config.variants import (
    GLOBAL_HEAD_DIM,
    LARGEST_IMAGE_TOKENS,
    PATCHES_PER_IMAGE_TOKEN,
    SLIDING_HEAD_DIM,
    TRAINED_CONTEXT,
    VISION_HIDDEN,
    VISION_MLP_WIDTH,
    VOCABULARY,
    WINDOW,
    Variant,
)
from launcher.memory import MemoryEstimate

MIB: Final = 2**20
ELEMENT_BYTES: Final = 2
"""Activations, cache and the vision tower are bfloat16."""
WEIGHT_SLACK: Final = 1.02
"""Padding, scales in other layouts, and parts that every GPU holds whole (norms, router)."""
SAMPLER_BYTES: Final = 16
"""Per sequence and vocabulary entry: float32 logits, a sorted copy, and its 64-bit indices."""
CONTEXT_BYTES: Final = 1024 * MIB
"""CUDA context, libraries and their workspaces."""
COLLECTIVE_BYTES: Final = 768 * MIB
"""Buffers for the exchange between GPUs."""
VLLM_GRAPH_BYTES_PER_LAYER: Final = 25 * MIB
TRTLLM_GRAPH_BYTES: Final = 7 * 200 * MIB
"""Seven captured batch sizes of up to 200 MB each."""


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """What an engine puts on its GPUs, apart from the cache.

    Attributes:
        weight_bytes: of the whole checkpoint, vision tower included.
        draft_bytes: of the draft model, which every GPU holds whole; 0 without one.
        tensor_parallel: number of GPUs.
        batch_tokens: tokens that one step computes at most.
        sequences: that one step serves at most.
        graphs: whether CUDA graphs are captured.
        lora_rank: largest rank of an adapter; 0 without adapters.
        lora_slots: adapters that are there at the same time.
    """

    variant: Variant
    engine: str
    weight_bytes: int
    draft_bytes: int
    tensor_parallel: int
    batch_tokens: int
    sequences: int
    graphs: bool
    lora_rank: int
    lora_slots: int = 8


@dataclass(frozen=True, slots=True)
class CacheCost:
    """Bytes of keys and values on each GPU.

    Attributes:
        per_token: of the layers that keep every token.
        per_window_token: of the layers that keep the window only.
    """

    per_token: int
    per_window_token: int

    def sequence(self, tokens: int) -> int:
        """Return the bytes of one sequence that is not being computed."""
        return tokens * self.per_token + min(tokens, WINDOW) * self.per_window_token

    def computing(self, tokens: int, batch_tokens: int) -> int:
        """Return what a prompt of so many tokens needs beside ``sequence`` while it is computed.

        A sliding layer keeps all tokens of a batch until the batch is done. The tokens of one step are shared by all
        sequences, so this is needed once.
        """
        return min(max(tokens - WINDOW, 0), batch_tokens) * self.per_window_token


def cache_cost(variant: Variant, tensor_parallel: int = 1, element_bytes: int = ELEMENT_BYTES) -> CacheCost:
    """Return what the cache costs; heads are shared out, and where they do not suffice each GPU holds one whole."""
    window_heads = -(-variant.sliding_kv_heads // tensor_parallel)
    global_heads = -(-variant.global_kv_heads // tensor_parallel)
    return CacheCost(
        per_token=2 * global_heads * GLOBAL_HEAD_DIM * element_bytes * variant.global_layers,
        per_window_token=2 * window_heads * SLIDING_HEAD_DIM * element_bytes * variant.sliding_layers,
    )


def estimate_gpu(load: GpuLoad, context: int, concurrent: int = 1) -> MemoryEstimate:
    """Estimate the bytes on each GPU with so many sequences of so many tokens in the cache."""
    cost = cache_cost(load.variant, load.tensor_parallel)
    return MemoryEstimate(
        weights=_weights(load),
        cache=concurrent * cost.sequence(context) + cost.computing(context, load.batch_tokens),
        activations=_activations(load),
        vision=_vision(),
        graphs=_graphs(load),
        overhead=CONTEXT_BYTES + (COLLECTIVE_BYTES if load.tensor_parallel > 1 else 0),
    )


def largest_context(load: GpuLoad, budget: int) -> int:
    """Return how many tokens one sequence may have when each GPU has ``budget`` bytes; 0 when not even weights fit."""
    left = budget - estimate_gpu(load, 0).total
    cost = cache_cost(load.variant, load.tensor_parallel)
    if left <= 0:
        return 0
    # Up to this length every token costs in all layers, from there on in the global ones only.
    bend = WINDOW + load.batch_tokens
    each = cost.per_token + cost.per_window_token
    tokens = left // each if left < bend * each else (left - bend * cost.per_window_token) // cost.per_token
    return min(tokens, TRAINED_CONTEXT)


def concurrent_sequences(load: GpuLoad, budget: int, context: int) -> int:
    """Return how many sequences of ``context`` tokens fit at the same time, whatever ``load.sequences`` allows."""
    left = budget - estimate_gpu(load, context, concurrent=0).total
    return max(left, 0) // max(cache_cost(load.variant, load.tensor_parallel).sequence(context), 1)


def cache_tokens(load: GpuLoad, budget: int, context: int) -> int:
    """Return the tokens that the cache holds in all when every sequence has ``context`` tokens."""
    return concurrent_sequences(load, budget, context) * context


def _weights(load: GpuLoad) -> int:
    variant = load.variant
    vision = variant.vision_parameters * ELEMENT_BYTES
    # vLLM loads the keys' projection of the global layers twice, because they have no values' projection.
    twice = variant.global_layers * variant.hidden * variant.global_kv_heads * GLOBAL_HEAD_DIM * ELEMENT_BYTES
    text = max(load.weight_bytes - vision, 0) + (twice if load.engine == "vllm" else 0)
    adapters = load.lora_slots * load.lora_rank * _adapter_width(variant) * ELEMENT_BYTES
    shared = int((text + adapters) * WEIGHT_SLACK) // load.tensor_parallel
    return shared + vision + load.draft_bytes


@lru_cache(maxsize=8)
def _adapter_width(variant: Variant) -> int:
    """Return inputs plus outputs of all matrices that an adapter changes: attention and dense MLP, not the experts."""
    width = 0
    for sliding in variant.pattern:
        head = SLIDING_HEAD_DIM if sliding else GLOBAL_HEAD_DIM
        queries = variant.query_heads * head
        keys = (variant.sliding_kv_heads if sliding else variant.global_kv_heads) * head
        width += 2 * (variant.hidden + queries) + 2 * (variant.hidden + keys) + 3 * (variant.hidden + variant.mlp_width)
    return width


def _activations(load: GpuLoad) -> int:
    variant = load.variant
    attention = 2 * (variant.query_heads + 2 * variant.global_kv_heads) * GLOBAL_HEAD_DIM
    inner = attention + 3 * variant.mlp_width + 3 * variant.active_experts * variant.expert_width
    whole = (6 + variant.active_experts) * variant.hidden
    batch = load.batch_tokens * ELEMENT_BYTES * (whole + inner // load.tensor_parallel)
    return batch + load.sequences * VOCABULARY * SAMPLER_BYTES


def _vision() -> int:
    patches = LARGEST_IMAGE_TOKENS * PATCHES_PER_IMAGE_TOKEN
    return patches * ELEMENT_BYTES * (8 * VISION_HIDDEN + 2 * VISION_MLP_WIDTH)


def _graphs(load: GpuLoad) -> int:
    if not load.graphs:
        return 0
    return TRTLLM_GRAPH_BYTES if load.engine == "tensorrt_llm" else load.variant.layers * VLLM_GRAPH_BYTES_PER_LAYER
