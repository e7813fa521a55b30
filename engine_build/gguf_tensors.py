"""Which GGUF tensor each checkpoint tensor becomes: names, shapes, rearrangement, and which stay float32.

The names are llama.cpp's for the architectures ``gemma4`` and ``clip`` with the projector ``gemma4v`` (its
``src/llama-arch.cpp`` and ``tools/mtmd/clip-impl.h``). The lists are made from the config, so a checkpoint that lacks a
tensor or has one of another shape is noticed before anything is written. Types are left to ``gguf_encoding``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_build.model_config import TextConfig, VisionConfig

TEXT_PREFIX = "model.language_model"
VISION_PREFIX = "model.vision_tower"
RGB_CHANNELS = 3


class Storage(Enum):
    """How the type of a tensor in the GGUF file is found."""

    WEIGHT = auto()
    """The type that the user asked for."""
    FLOAT32 = auto()
    """Always float32: vectors, the router, positions. They are small, and kernels take no other type."""
    CONVOLUTION = auto()
    """float16 or float32: llama.cpp's convolution takes nothing else."""


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor to write. ``shape`` is that of the checkpoint, outermost dimension first."""

    source: str
    target: str
    shape: tuple[int, ...]
    storage: Storage
    patch_size: int | None = None
    """Set for the patch embedding: its columns, pixel by pixel, become ``[channel, row, column]``."""

    @property
    def target_shape(self) -> tuple[int, ...]:
        """Shape in the GGUF file, outermost dimension first."""
        if self.patch_size is None:
            return self.shape
        return (self.shape[0], RGB_CHANNELS, self.patch_size, self.patch_size)


def text_tensors(config: TextConfig) -> Iterator[TensorPlan]:
    """Yield the tensors of the text model in the order in which they are written."""
    hidden = config.hidden_size
    yield _weight(f"{TEXT_PREFIX}.embed_tokens.weight", "token_embd.weight", config.vocab_size, hidden)
    yield _vector(f"{TEXT_PREFIX}.norm.weight", "output_norm.weight", hidden)
    for layer in range(config.num_hidden_layers):
        source, target = f"{TEXT_PREFIX}.layers.{layer}", f"blk.{layer}"
        yield from _attention(config, layer, source, target)
        yield from _feed_forward(f"{source}.mlp", target, hidden, config.intermediate_size)
        yield _vector(f"{source}.input_layernorm.weight", f"{target}.attn_norm.weight", hidden)
        yield _vector(f"{source}.post_attention_layernorm.weight", f"{target}.post_attention_norm.weight", hidden)
        yield _vector(f"{source}.pre_feedforward_layernorm.weight", f"{target}.ffn_norm.weight", hidden)
        yield _vector(f"{source}.post_feedforward_layernorm.weight", f"{target}.post_ffw_norm.weight", hidden)
        yield _vector(f"{source}.layer_scalar", f"{target}.layer_output_scale.weight", 1)
        if config.enable_moe_block:
            yield from _experts(config, source, target)


def vision_tensors(config: VisionConfig, text_hidden_size: int) -> Iterator[TensorPlan]:
    """Yield the tensors of the vision tower and its projector in the order in which they are written."""
    hidden, patch = config.hidden_size, config.patch_size
    projection = "model.embed_vision.embedding_projection.weight"
    yield _weight(projection, "mm.input_projection.weight", text_hidden_size, hidden)
    embedder = f"{VISION_PREFIX}.patch_embedder"
    pixels = (hidden, patch * patch * RGB_CHANNELS)
    yield TensorPlan(f"{embedder}.input_proj.weight", "v.patch_embd.weight", pixels, Storage.CONVOLUTION, patch)
    # One table for x and one for y.
    positions = (2, config.position_embedding_size, hidden)
    yield TensorPlan(f"{embedder}.position_embedding_table", "v.position_embd.weight", positions, Storage.FLOAT32)
    if config.standardize:
        yield _vector(f"{VISION_PREFIX}.std_bias", "v.std_bias", hidden)
        yield _vector(f"{VISION_PREFIX}.std_scale", "v.std_scale", hidden)
    for layer in range(config.num_hidden_layers):
        yield from _vision_layer(config, f"{VISION_PREFIX}.encoder.layers.{layer}", f"v.blk.{layer}")


def _weight(source: str, target: str, *shape: int) -> TensorPlan:
    return TensorPlan(source, target, shape, Storage.WEIGHT)


def _vector(source: str, target: str, size: int) -> TensorPlan:
    return TensorPlan(source, target, (size,), Storage.FLOAT32)


def _attention(config: TextConfig, layer: int, source: str, target: str) -> Iterator[TensorPlan]:
    """Yield the attention of one text layer; full layers may have no value projection."""
    hidden, head = config.hidden_size, config.head_size(layer)
    queries, keys = config.num_attention_heads * head, config.kv_heads(layer) * head
    attention = f"{source}.self_attn"
    yield _weight(f"{attention}.q_proj.weight", f"{target}.attn_q.weight", queries, hidden)
    yield _weight(f"{attention}.k_proj.weight", f"{target}.attn_k.weight", keys, hidden)
    if config.has_value_projection(layer):
        yield _weight(f"{attention}.v_proj.weight", f"{target}.attn_v.weight", keys, hidden)
    yield _weight(f"{attention}.o_proj.weight", f"{target}.attn_output.weight", hidden, queries)
    yield _vector(f"{attention}.q_norm.weight", f"{target}.attn_q_norm.weight", head)
    yield _vector(f"{attention}.k_norm.weight", f"{target}.attn_k_norm.weight", head)


def _feed_forward(source: str, target: str, hidden: int, inner: int, suffix: str = "") -> Iterator[TensorPlan]:
    """Yield a gated feed-forward block; ``suffix`` is what the vision tower puts between name and ``weight``."""
    yield _weight(f"{source}.gate_proj{suffix}.weight", f"{target}.ffn_gate.weight", inner, hidden)
    yield _weight(f"{source}.up_proj{suffix}.weight", f"{target}.ffn_up.weight", inner, hidden)
    yield _weight(f"{source}.down_proj{suffix}.weight", f"{target}.ffn_down.weight", hidden, inner)


def _experts(config: TextConfig, source: str, target: str) -> Iterator[TensorPlan]:
    """Yield the routed experts of one layer, their router and their norms."""
    hidden, experts, inner = config.hidden_size, config.num_experts or 0, config.moe_intermediate_size or 0
    yield _weight(f"{source}.experts.gate_up_proj", f"{target}.ffn_gate_up_exps.weight", experts, 2 * inner, hidden)
    yield _weight(f"{source}.experts.down_proj", f"{target}.ffn_down_exps.weight", experts, hidden, inner)
    router = (experts, hidden)
    yield TensorPlan(f"{source}.router.proj.weight", f"{target}.ffn_gate_inp.weight", router, Storage.FLOAT32)
    yield _vector(f"{source}.router.scale", f"{target}.ffn_gate_inp.scale", hidden)
    # A factor on an expert's share is the same factor on what its down projection gives.
    yield _vector(f"{source}.router.per_expert_scale", f"{target}.ffn_down_exps.scale", experts)
    yield _vector(f"{source}.post_feedforward_layernorm_1.weight", f"{target}.post_ffw_norm_1.weight", hidden)
    yield _vector(f"{source}.pre_feedforward_layernorm_2.weight", f"{target}.pre_ffw_norm_2.weight", hidden)
    yield _vector(f"{source}.post_feedforward_layernorm_2.weight", f"{target}.post_ffw_norm_2.weight", hidden)


def _vision_layer(config: VisionConfig, source: str, target: str) -> Iterator[TensorPlan]:
    """Yield one encoder layer of the vision tower; its linear layers are wrapped, hence ``.linear`` in their names."""
    hidden, head = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    attention = f"{source}.self_attn"
    yield _weight(f"{attention}.q_proj.linear.weight", f"{target}.attn_q.weight", queries, hidden)
    yield _weight(f"{attention}.k_proj.linear.weight", f"{target}.attn_k.weight", keys, hidden)
    yield _weight(f"{attention}.v_proj.linear.weight", f"{target}.attn_v.weight", keys, hidden)
    yield _weight(f"{attention}.o_proj.linear.weight", f"{target}.attn_out.weight", hidden, queries)
    yield _vector(f"{attention}.q_norm.weight", f"{target}.attn_q_norm.weight", head)
    yield _vector(f"{attention}.k_norm.weight", f"{target}.attn_k_norm.weight", head)
    yield from _feed_forward(f"{source}.mlp", target, hidden, config.intermediate_size, ".linear")
    yield _vector(f"{source}.input_layernorm.weight", f"{target}.ln1.weight", hidden)
    yield _vector(f"{source}.post_attention_layernorm.weight", f"{target}.attn_post_norm.weight", hidden)
    yield _vector(f"{source}.pre_feedforward_layernorm.weight", f"{target}.ln2.weight", hidden)
    yield _vector(f"{source}.post_feedforward_layernorm.weight", f"{target}.ffn_post_norm.weight", hidden)
