"""Makes small random Gemma 4 checkpoints in Hugging Face layout with numpy alone."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.fakes.vocabulary import build_tokenizer_json

Array = npt.NDArray[np.float32]
TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "sliding_window": 1024,
    "layer_types": ["sliding_attention", "full_attention"],
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    },
}
EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "patch_size": 16,
    "position_embedding_size": 128,
    "standardize": True,
}
# Shapes of one text layer, of the routed experts, of one vision layer and of the rest, written out as facts.
ATTENTION = {
    "sliding_attention": {"q_proj": (64, 64), "k_proj": (64, 64), "v_proj": (64, 64), "o_proj": (64, 64)},
    "full_attention": {"q_proj": (128, 64), "k_proj": (64, 64), "o_proj": (64, 128)},
}
BLOCK_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
MLP = {"gate_proj": (96, 64), "up_proj": (96, 64), "down_proj": (64, 96)}
ROUTED = {
    "experts.gate_up_proj": (4, 64, 64),
    "experts.down_proj": (4, 64, 32),
    "router.proj.weight": (4, 64),
    "router.scale": (64,),
    "router.per_expert_scale": (4,),
    "post_feedforward_layernorm_1.weight": (64,),
    "pre_feedforward_layernorm_2.weight": (64,),
    "post_feedforward_layernorm_2.weight": (64,),
}


def tensor_shapes(vocab_size: int, *, experts: bool) -> dict[str, tuple[int, ...]]:
    """Return every tensor of the small checkpoint under its published name."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.language_model.embed_tokens.weight": (vocab_size, 64),
        "model.language_model.norm.weight": (64,),
        "model.embed_vision.embedding_projection.weight": (64, 64),
        "model.vision_tower.patch_embedder.input_proj.weight": (64, 768),
        "model.vision_tower.patch_embedder.position_embedding_table": (2, 128, 64),
        "model.vision_tower.std_bias": (64,),
        "model.vision_tower.std_scale": (64,),
    }
    for layer, kind in enumerate(("sliding_attention", "full_attention")):
        prefix = f"model.language_model.layers.{layer}"
        head = 32 if kind == "sliding_attention" else 64
        shapes |= {f"{prefix}.self_attn.{name}.weight": shape for name, shape in ATTENTION[kind].items()}
        shapes |= {f"{prefix}.self_attn.{name}.weight": (head,) for name in ("q_norm", "k_norm")}
        shapes |= {f"{prefix}.mlp.{name}.weight": shape for name, shape in MLP.items()}
        shapes |= {f"{prefix}.{name}.weight": (64,) for name in BLOCK_NORMS}
        shapes[f"{prefix}.layer_scalar"] = (1,)
        if experts:
            shapes |= {f"{prefix}.{name}": shape for name, shape in ROUTED.items()}
    prefix = "model.vision_tower.encoder.layers.0"
    shapes |= {
        f"{prefix}.self_attn.{name}.linear.weight": (64, 64) for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    }
    shapes |= {f"{prefix}.self_attn.{name}.weight": (32,) for name in ("q_norm", "k_norm")}
    shapes |= {f"{prefix}.mlp.{name}.linear.weight": shape for name, shape in MLP.items()}
    return shapes | {f"{prefix}.{name}.weight": (64,) for name in BLOCK_NORMS}


def tokenizer_json() -> dict[str, Any]:
    """Return the tests' vocabulary with some merges and Gemma 4's decoder and splitting."""
    tokenizer: dict[str, Any] = json.loads(build_tokenizer_json())
    vocab, merges = tokenizer["model"]["vocab"], []
    for left, right in (("t", "h"), ("th", "e"), ("\u2581", "the"), ("i", "n"), ("\n", "\n"), ("1", "2")):
        vocab[left + right] = len(vocab)
        merges.append([left, right])
    tokenizer["model"] |= {"merges": merges, "fuse_unk": True}
    tokenizer["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    mark_to_space = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    tokenizer["decoder"] = {"type": "Sequence", "decoders": [mark_to_space, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return tokenizer


def to_bfloat16(values: Array) -> npt.NDArray[np.uint16]:
    """Return the upper halves of float32 values, which is bfloat16 rounded towards zero."""
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a safetensors file; uint16 arrays are bfloat16."""
    names = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.uint16): "BF16"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, data in tensors.items():
        offsets = [position, position + data.nbytes]
        header[name] = {"dtype": names[data.dtype], "shape": list(data.shape), "data_offsets": offsets}
        position += data.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data.tobytes() for data in tensors.values()))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory and what was put into it."""

    directory: Path
    tensors: dict[str, Array]
    config: dict[str, Any]
    tokenizer: dict[str, Any]

    def save_config(self) -> None:
        """Write ``config.json`` again, after a test changed it."""
        (self.directory / "config.json").write_text(json.dumps(self.config), encoding="utf-8")

    def save_tensors(self) -> None:
        """Write ``model.safetensors`` again, after a test changed the tensors."""
        write_safetensors(self.directory / "model.safetensors", self.tensors)


def make_checkpoint(directory: Path, *, experts: bool = True, seed: int = 0) -> Checkpoint:
    """Write a checkpoint whose values are exact in bfloat16 and float16."""
    tokenizer = tokenizer_json()
    vocab = tokenizer["model"]["vocab"]
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for name, shape in tensor_shapes(len(vocab), experts=experts).items():
        # Multiples of 1/64 below 2 need 7 bits, which every type holds exactly.
        scale = 0.25 if len(shape) > 1 else 1.0
        values = np.round(random.standard_normal(shape) * scale * 64) / 64
        tensors[name] = (np.clip(values, -1.5, 1.5) + (1.0 if len(shape) == 1 else 0.0)).astype(np.float32)
    text = {**TEXT, **(EXPERTS if experts else {}), "vocab_size": len(vocab)}
    # A copy to the bottom, because tests change it.
    config = copy.deepcopy({"model_type": "gemma4", "text_config": text, "vision_config": VISION})
    generation = {
        "top_k": 64,
        "top_p": 0.95,
        "temperature": 1.0,
        "eos_token_id": [vocab[name] for name in ("<eos>", "<turn|>", "<|tool_response>")],
    }
    directory.mkdir(parents=True)
    checkpoint = Checkpoint(directory, tensors, config, tokenizer)
    checkpoint.save_config()
    checkpoint.save_tensors()
    (directory / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Return a checkpoint with routed experts."""
    return make_checkpoint(tmp_path / "moe")


@pytest.fixture
def dense_checkpoint(tmp_path: Path) -> Checkpoint:
    """Return a checkpoint without routed experts."""
    return make_checkpoint(tmp_path / "dense", experts=False)


@pytest.fixture
def safetensors_writer() -> Callable[[Path, Mapping[str, npt.NDArray[Any]]], None]:
    """Return the function that writes safetensors files."""
    return write_safetensors
