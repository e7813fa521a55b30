"""Sizes of the demo checkpoints, and the ``config.json`` that describes them in the published style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

EPS: Final = 1e-6


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of one demo checkpoint; ``experts`` 0 is the dense shape."""

    name: str
    vocab: int = 2048
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    global_kv_heads: int = 1
    global_head_dim: int = 64
    mlp: int = 192
    experts: int = 8
    experts_per_token: int = 2
    expert_dim: int = 32
    window: int = 1024
    context: int = 8192
    softcap: float = 30.0
    vision_hidden: int = 64
    vision_layers: int = 2
    vision_heads: int = 2
    vision_mlp: int = 128
    vision_positions: int = 4096


CONFIGS: Final = {
    "demo-moe": DemoConfig("demo-moe"),
    "demo-dense": DemoConfig("demo-dense", mlp=384, experts=0),
}


_BLOCK: Final = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "rms_norm_eps": EPS,
}
"""What text and vision layers have in common."""
_TEXT: Final = _BLOCK | {
    "model_type": "gemma4_text",
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "attention_k_eq_v": True,
    "use_bidirectional_attention": "vision",
    "use_double_wide_mlp": False,
    "use_cache": True,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
}
_VISION: Final = _BLOCK | {
    "model_type": "gemma4_vision",
    "max_position_embeddings": 131072,
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "default_output_length": 280,
    "rope_parameters": {"rope_theta": 100.0, "rope_type": "axial"},
    "standardize": True,
    "use_clipped_linears": False,
}


def _text_config(config: DemoConfig, ids: dict[str, int]) -> dict[str, Any]:
    return _TEXT | {
        "vocab_size": config.vocab,
        "vocab_size_per_layer_input": config.vocab,
        "hidden_size": config.hidden,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "num_global_key_value_heads": config.global_kv_heads,
        "head_dim": config.head_dim,
        "global_head_dim": config.global_head_dim,
        "max_position_embeddings": config.context,
        "sliding_window": config.window,
        "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(config.layers)],
        "final_logit_softcapping": config.softcap,
        "enable_moe_block": bool(config.experts),
        "num_experts": config.experts or None,
        "top_k_experts": config.experts_per_token if config.experts else None,
        "moe_intermediate_size": config.expert_dim if config.experts else None,
        "bos_token_id": ids["<bos>"],
        "eos_token_id": ids["<eos>"],
        "pad_token_id": ids["<pad>"],
    }


def _vision_config(config: DemoConfig) -> dict[str, Any]:
    return _VISION | {
        "hidden_size": config.vision_hidden,
        "intermediate_size": config.vision_mlp,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_heads,
        "num_key_value_heads": config.vision_heads,
        "head_dim": config.vision_hidden // config.vision_heads,
        "global_head_dim": config.vision_hidden // config.vision_heads,
        "position_embedding_size": config.vision_positions,
    }


def hf_config(config: DemoConfig, ids: dict[str, int]) -> dict[str, Any]:
    """Return ``config.json`` in the style of the published checkpoints; ``ids`` are the special tokens' by name."""
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "float32",
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "audio_config": None,
        "audio_token_id": ids["<|audio|>"],
        "boa_token_id": ids["<|audio>"],
        "eoa_token_index": ids["<audio|>"],
        "boi_token_id": ids["<|image>"],
        "eoi_token_id": ids["<image|>"],
        "image_token_id": ids["<|image|>"],
        "video_token_id": ids["<|video|>"],
        "eos_token_id": [ids["<eos>"], ids["<turn|>"], ids["<|tool_response>"]],
        "text_config": _text_config(config, ids),
        "vision_config": _vision_config(config),
    }
