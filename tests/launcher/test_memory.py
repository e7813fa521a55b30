"""The memory estimate against the published figures of both Gemma 4 models."""

from __future__ import annotations

import pytest

from launcher.memory import ModelShape, estimate_memory

MIB = 2**20


def _shape(layers: int, sliding_heads: int, global_heads: int, embedding: int, feed_forward: int) -> ModelShape:
    pattern = tuple(index % 6 != 5 for index in range(layers))
    return ModelShape(
        layers=layers,
        trained_context=262_144,
        embedding=embedding,
        feed_forward=feed_forward,
        experts=0,
        vocab=262_144,
        window=1024,
        cache_bytes_per_token=tuple(
            2 * 2 * (sliding_heads * 256 if sliding else global_heads * 512) for sliding in pattern
        ),
        sliding=pattern,
    )


MOE = _shape(30, 8, 2, 2816, 2112 + 8 * 704)
DENSE = _shape(60, 16, 4, 5376, 21504)


@pytest.mark.parametrize(("shape", "per_token"), [(MOE, 20_480), (DENSE, 81_920)])
def test_global_layers_cost_their_published_bytes_per_token(shape: ModelShape, per_token: int) -> None:
    """Beyond the window only global layers grow: 20,480 and 81,920 bytes per token."""
    small = estimate_memory(shape, 0, 65_536, 1).cache
    large = estimate_memory(shape, 0, 131_072, 1).cache

    assert large - small == per_token * 65_536


@pytest.mark.parametrize(("shape", "window_mib"), [(MOE, 200), (DENSE, 800)])
def test_sliding_layers_keep_a_window_and_a_batch(shape: ModelShape, window_mib: int) -> None:
    """Sliding layers hold the window of 1,024 tokens plus the batch that is being computed, whatever the context."""
    cells = 1024 + 1280
    global_bytes = estimate_memory(shape, 0, 131_072, 1).cache - estimate_memory(shape, 0, 65_536, 1).cache
    sliding = estimate_memory(shape, 0, 65_536, 1).cache - global_bytes

    assert sliding == window_mib * MIB * cells // 1024


def test_short_context_never_costs_more_than_its_tokens() -> None:
    """A context below the window keeps no more than the context."""
    assert estimate_memory(MOE, 0, 512, 1).cache == 512 * sum(MOE.cache_bytes_per_token)


def test_every_sequence_has_a_cache_of_its_own() -> None:
    """The cache grows in step with the number of sequences; the weights do not."""
    one, eight = estimate_memory(MOE, 1000, 4096, 1), estimate_memory(MOE, 1000, 4096, 8)

    assert eight.cache == 8 * one.cache
    assert eight.weights == one.weights == 1000
    assert one.total == one.weights + one.cache + one.buffers
