"""What the exporter writes, compared with facts about Gemma 4 and with the values that went in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor, TokenType, quants

from engine_build.gguf_encoding import WeightType
from engine_build.gguf_export import export_checkpoint, main

if TYPE_CHECKING:
    from tests.engine_build.conftest import Checkpoint

LAYER = "model.language_model.layers"
TOWER = "model.vision_tower"
TEXT_LAYER_NAMES = {
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_output.weight",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "post_attention_norm.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "post_ffw_norm.weight",
    "layer_output_scale.weight",
}
EXPERT_NAMES = {
    "ffn_gate_up_exps.weight",
    "ffn_down_exps.weight",
    "ffn_down_exps.scale",
    "ffn_gate_inp.weight",
    "ffn_gate_inp.scale",
    "post_ffw_norm_1.weight",
    "pre_ffw_norm_2.weight",
    "post_ffw_norm_2.weight",
}
VISION_NAMES = {
    "mm.input_projection.weight",
    "v.patch_embd.weight",
    "v.position_embd.weight",
    "v.std_bias",
    "v.std_scale",
    *(f"v.blk.0.{name}.weight" for name in ("ln1", "ln2", "attn_post_norm", "ffn_post_norm", "attn_out")),
    *(f"v.blk.0.attn_{name}.weight" for name in ("q", "k", "v", "q_norm", "k_norm")),
    *(f"v.blk.0.ffn_{name}.weight" for name in ("gate", "up", "down")),
}
# A few pairs per kind of tensor; together with the names above they hold the whole map.
SAME_VALUES = {
    "token_embd.weight": "model.language_model.embed_tokens.weight",
    "output_norm.weight": "model.language_model.norm.weight",
    "blk.0.attn_v.weight": f"{LAYER}.0.self_attn.v_proj.weight",
    "blk.1.attn_k.weight": f"{LAYER}.1.self_attn.k_proj.weight",
    "blk.1.attn_output.weight": f"{LAYER}.1.self_attn.o_proj.weight",
    "blk.0.ffn_norm.weight": f"{LAYER}.0.pre_feedforward_layernorm.weight",
    "blk.0.post_ffw_norm.weight": f"{LAYER}.0.post_feedforward_layernorm.weight",
    "blk.0.post_attention_norm.weight": f"{LAYER}.0.post_attention_layernorm.weight",
    "blk.0.ffn_up.weight": f"{LAYER}.0.mlp.up_proj.weight",
    "blk.1.layer_output_scale.weight": f"{LAYER}.1.layer_scalar",
    "blk.0.ffn_gate_up_exps.weight": f"{LAYER}.0.experts.gate_up_proj",
    "blk.0.ffn_down_exps.weight": f"{LAYER}.0.experts.down_proj",
    "blk.0.ffn_down_exps.scale": f"{LAYER}.0.router.per_expert_scale",
    "blk.0.ffn_gate_inp.weight": f"{LAYER}.0.router.proj.weight",
    "blk.0.ffn_gate_inp.scale": f"{LAYER}.0.router.scale",
    "blk.0.pre_ffw_norm_2.weight": f"{LAYER}.0.pre_feedforward_layernorm_2.weight",
    "blk.0.post_ffw_norm_1.weight": f"{LAYER}.0.post_feedforward_layernorm_1.weight",
}
SAME_VISION_VALUES = {
    "mm.input_projection.weight": "model.embed_vision.embedding_projection.weight",
    "v.position_embd.weight": f"{TOWER}.patch_embedder.position_embedding_table",
    "v.std_bias": f"{TOWER}.std_bias",
    "v.std_scale": f"{TOWER}.std_scale",
    "v.blk.0.attn_out.weight": f"{TOWER}.encoder.layers.0.self_attn.o_proj.linear.weight",
    "v.blk.0.ln1.weight": f"{TOWER}.encoder.layers.0.input_layernorm.weight",
    "v.blk.0.ln2.weight": f"{TOWER}.encoder.layers.0.pre_feedforward_layernorm.weight",
    "v.blk.0.attn_post_norm.weight": f"{TOWER}.encoder.layers.0.post_attention_layernorm.weight",
    "v.blk.0.ffn_post_norm.weight": f"{TOWER}.encoder.layers.0.post_feedforward_layernorm.weight",
    "v.blk.0.ffn_down.weight": f"{TOWER}.encoder.layers.0.mlp.down_proj.linear.weight",
}


def tensors_of(path: Path) -> dict[str, ReaderTensor]:
    """Return the tensors of a GGUF file by name."""
    return {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def values_of(tensor: ReaderTensor) -> npt.NDArray[np.float32]:
    """Return a tensor's values as float32, outermost dimension first."""
    return quants.dequantize(tensor.data, tensor.tensor_type).reshape([int(side) for side in reversed(tensor.shape)])


def fields_of(path: Path) -> dict[str, Any]:
    """Return a GGUF file's fields by key."""
    return {key: field.contents() for key, field in GGUFReader(path).fields.items() if not key.startswith("GGUF.")}


def test_writes_every_tensor_under_llama_cpp_names(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A checkpoint with experts gives exactly the tensors that llama.cpp looks for; only sliding layers have values."""
    written = export_checkpoint(checkpoint.directory, tmp_path / "out")
    assert [path.name for path in written] == ["model.gguf", "mmproj.gguf", "tokenizer.json"]
    expected = {"token_embd.weight", "output_norm.weight", "rope_freqs.weight", "blk.0.attn_v.weight"}
    expected |= {f"blk.{layer}.{name}" for layer in (0, 1) for name in TEXT_LAYER_NAMES | EXPERT_NAMES}
    assert set(tensors_of(written[0])) == expected
    assert set(tensors_of(written[1])) == VISION_NAMES


def test_dense_checkpoint_has_no_experts(dense_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Without routed experts neither their tensors nor their metadata are written."""
    path = export_checkpoint(dense_checkpoint.directory, tmp_path / "out")[0]
    assert not any("exps" in name or "ffn_gate_inp" in name for name in tensors_of(path))
    assert not any(key.startswith("gemma4.expert") for key in fields_of(path))


@pytest.mark.parametrize("weight_type", [WeightType.F32, WeightType.F16, WeightType.BF16])
def test_values_arrive_unchanged(checkpoint: Checkpoint, tmp_path: Path, weight_type: WeightType) -> None:
    """Values that a type can hold are written exactly, in the tensor that they belong to."""
    model, projector, _ = export_checkpoint(checkpoint.directory, tmp_path / "out", weight_type, weight_type)
    for path, pairs in ((model, SAME_VALUES), (projector, SAME_VISION_VALUES)):
        tensors = tensors_of(path)
        for target, source in pairs.items():
            np.testing.assert_array_equal(values_of(tensors[target]), checkpoint.tensors[source], err_msg=target)
    assert tensors_of(model)["blk.0.attn_q.weight"].tensor_type.name == weight_type.name


def test_patches_become_a_convolution_kernel(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Column ``(row, column, channel)`` of the patch embedding is kernel element ``[channel, row, column]``."""
    projector = export_checkpoint(checkpoint.directory, tmp_path / "out")[1]
    kernel = values_of(tensors_of(projector)["v.patch_embd.weight"])
    source = checkpoint.tensors[f"{TOWER}.patch_embedder.input_proj.weight"]
    assert kernel.shape == (64, 3, 16, 16)
    for output, channel, row, column in ((0, 0, 0, 0), (5, 2, 3, 7), (63, 1, 15, 14)):
        assert kernel[output, channel, row, column] == source[output, (row * 16 + column) * 3 + channel]


def test_only_a_quarter_of_the_full_layers_frequencies_turn(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The proportional rotary embedding divides the standing frequencies by a number that stops them."""
    model = export_checkpoint(checkpoint.directory, tmp_path / "out")[0]
    factors = values_of(tensors_of(model)["rope_freqs.weight"])
    assert factors.tolist() == [1.0] * 8 + [np.float32(1e30)] * 24


def test_quantised_weights_stay_close(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """q8_0 keeps each value within half a step of its block, and leaves vectors, router and vision tower alone."""
    model, projector, _ = export_checkpoint(checkpoint.directory, tmp_path / "out", WeightType.Q8_0)
    tensors = tensors_of(model)
    for target in ("token_embd.weight", "blk.0.ffn_gate_up_exps.weight", "blk.1.attn_q.weight"):
        assert tensors[target].tensor_type is GGMLQuantizationType.Q8_0
    source = checkpoint.tensors[f"{LAYER}.0.experts.gate_up_proj"].reshape(-1, 32)
    error = np.abs(values_of(tensors["blk.0.ffn_gate_up_exps.weight"]).reshape(-1, 32) - source)
    # The step is the block's largest value over 127, itself rounded to float16.
    step = np.abs(source).max(axis=1, keepdims=True) / 127
    assert (error <= step * 0.5 + np.abs(source) * 2**-10).all()
    for target in ("blk.0.ffn_gate_inp.weight", "blk.0.ffn_down_exps.scale", "output_norm.weight"):
        assert tensors[target].tensor_type is GGMLQuantizationType.F32
    assert tensors_of(projector)["v.blk.0.attn_q.weight"].tensor_type is GGMLQuantizationType.F16


def test_rows_that_no_block_divides_stay_in_float16(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A quantised export keeps a matrix in float16 whose rows are not a multiple of 32 values."""
    checkpoint.config["text_config"]["moe_intermediate_size"] = 16
    for layer in (0, 1):
        gate_up, down = f"{LAYER}.{layer}.experts.gate_up_proj", f"{LAYER}.{layer}.experts.down_proj"
        checkpoint.tensors[gate_up] = checkpoint.tensors[gate_up][:, :32].copy()
        checkpoint.tensors[down] = checkpoint.tensors[down][:, :, :16].copy()
    checkpoint.save_config()
    checkpoint.save_tensors()
    tensors = tensors_of(export_checkpoint(checkpoint.directory, tmp_path / "out", WeightType.Q8_0)[0])
    assert tensors["blk.0.ffn_gate_up_exps.weight"].tensor_type is GGMLQuantizationType.Q8_0
    assert tensors["blk.0.ffn_down_exps.weight"].tensor_type is GGMLQuantizationType.F16


def test_text_metadata_describes_both_kinds_of_layers(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Head sizes, KV heads and rotary bases are given for full and for sliding layers."""
    fields = fields_of(export_checkpoint(checkpoint.directory, tmp_path / "out", name="small")[0])
    expected = {
        "general.architecture": "gemma4",
        "general.type": "model",
        "general.name": "small",
        "general.file_type": 1,
        "general.sampling.top_k": 64,
        "gemma4.block_count": 2,
        "gemma4.context_length": 4096,
        "gemma4.embedding_length": 64,
        "gemma4.feed_forward_length": 96,
        "gemma4.attention.head_count": 2,
        "gemma4.attention.head_count_kv": [2, 1],
        "gemma4.attention.key_length": 64,
        "gemma4.attention.value_length": 64,
        "gemma4.attention.key_length_swa": 32,
        "gemma4.attention.value_length_swa": 32,
        "gemma4.attention.sliding_window": 1024,
        "gemma4.attention.sliding_window_pattern": [True, False],
        "gemma4.attention.shared_kv_layers": 0,
        "gemma4.rope.freq_base": 1000000.0,
        "gemma4.rope.freq_base_swa": 10000.0,
        "gemma4.rope.dimension_count": 64,
        "gemma4.rope.dimension_count_swa": 32,
        "gemma4.final_logit_softcapping": 30.0,
        "gemma4.expert_count": 4,
        "gemma4.expert_used_count": 2,
        "gemma4.expert_feed_forward_length": 32,
    }
    assert {key: fields.get(key) for key in expected} == expected
    assert fields["gemma4.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


def test_vision_metadata(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The projector's file names its type and sizes; pixels are only scaled to 0..1 unless the checkpoint says more."""
    fields = fields_of(export_checkpoint(checkpoint.directory, tmp_path / "out")[1])
    expected = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.vision.projector_type": "gemma4v",
        "clip.vision.projection_dim": 64,
        "clip.vision.patch_size": 16,
        "clip.vision.embedding_length": 64,
        "clip.vision.feed_forward_length": 96,
        "clip.vision.block_count": 1,
        "clip.vision.attention.head_count": 2,
        "clip.vision.image_mean": [0.0, 0.0, 0.0],
        "clip.vision.image_std": [1.0, 1.0, 1.0],
    }
    assert {key: fields.get(key) for key in expected} == expected


def test_token_types_are_those_of_the_published_vocabulary(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Tokens that parsers read are user-defined, other special tokens are control, bytes are bytes."""
    fields = fields_of(export_checkpoint(checkpoint.directory, tmp_path / "out")[0])
    tokens = fields["tokenizer.ggml.tokens"]
    types = dict(zip(tokens, fields["tokenizer.ggml.token_type"], strict=True))
    visible = (
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
    )
    hidden = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|think|>", "<|turn>", "<turn|>")
    assert {types[name] for name in visible} == {TokenType.USER_DEFINED}
    assert {types[name] for name in (*hidden, "<|image>", "<|image|>", "<image|>")} == {TokenType.CONTROL}
    assert {types[f"<0x{byte:02X}>"] for byte in range(256)} == {TokenType.BYTE}
    assert {types["a"], types["\u2581the"]} == {TokenType.NORMAL}
    ids = {name: tokens.index(name) for name in ("<bos>", "<eos>", "<turn|>", "<|tool_response>", "<pad>", "<unk>")}
    named = {"bos": "<bos>", "eos": "<eos>", "eot": "<turn|>", "eom": "<|tool_response>", "padding": "<pad>"}
    assert {key: fields[f"tokenizer.ggml.{key}_token_id"] for key in named} == {k: ids[v] for k, v in named.items()}
    assert (fields["tokenizer.ggml.add_bos_token"], fields["tokenizer.ggml.add_space_prefix"]) == (True, False)
    assert fields["tokenizer.ggml.merges"][:3] == ["t h", "th e", "\u2581 the"]


def test_special_tokens_of_tokenizer_config_count_too(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A special token that only ``tokenizer_config.json`` names is written as control."""
    for entry in checkpoint.tokenizer["added_tokens"]:
        entry["special"] = False
    (checkpoint.directory / "tokenizer.json").write_text(json.dumps(checkpoint.tokenizer), encoding="utf-8")
    config = {"bos_token": "<bos>", "eos_token": {"content": "<eos>"}, "additional_special_tokens": ["<|turn>"]}
    (checkpoint.directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    fields = fields_of(export_checkpoint(checkpoint.directory, tmp_path / "out")[0])
    types = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    assert {types[name] for name in ("<bos>", "<eos>", "<|turn>")} == {TokenType.CONTROL}
    assert types["<mask>"] == TokenType.NORMAL


def test_shards_and_bfloat16_give_the_same_files(
    checkpoint: Checkpoint,
    tmp_path: Path,
    safetensors_writer: Callable[[Path, Mapping[str, npt.NDArray[Any]]], None],
) -> None:
    """A bfloat16 checkpoint in two shards exports to the same bytes as a float32 one in one file."""
    sharded = tmp_path / "sharded"
    shutil.copytree(checkpoint.directory, sharded)
    (sharded / "model.safetensors").unlink()
    names = sorted(checkpoint.tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        upper_halves = {name: (checkpoint.tensors[name].view(np.uint32) >> 16).astype(np.uint16) for name in members}
        safetensors_writer(sharded / shard, upper_halves)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    index = {"metadata": {}, "weight_map": weight_map}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    whole = export_checkpoint(checkpoint.directory, tmp_path / "a", name="same")
    parts = export_checkpoint(sharded, tmp_path / "b", name="same")
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in parts]


def test_per_layer_config_means_the_same_as_the_published_keys(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A config as transformers saves it exports to the same bytes as one with the published keys."""
    published = export_checkpoint(checkpoint.directory, tmp_path / "a")
    text = checkpoint.config["text_config"]
    overrides = {"head_dim": text.pop("global_head_dim"), "num_key_value_heads": text.pop("num_global_key_value_heads")}
    text["per_layer_config"] = {"1": overrides}
    checkpoint.save_config()
    saved = export_checkpoint(checkpoint.directory, tmp_path / "b")
    assert [path.read_bytes() for path in published] == [path.read_bytes() for path in saved]


def test_text_only_checkpoint_has_no_projector(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Without a vision config only the model and the tokenizer are written."""
    checkpoint.config["vision_config"] = None
    for name in [name for name in checkpoint.tensors if "vision" in name]:
        del checkpoint.tensors[name]
    checkpoint.save_config()
    checkpoint.save_tensors()
    written = export_checkpoint(checkpoint.directory, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.gguf", "tokenizer.json"]
    assert [path.name for path in written] == ["model.gguf", "tokenizer.json"]


def test_command_line_writes_the_files(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The command line exports in the asked-for type and leaves nothing but the three files."""
    assert main([str(checkpoint.directory), str(tmp_path / "out"), "--type", "bf16", "--vision-type", "f32"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mmproj.gguf", "model.gguf", "tokenizer.json"]
    assert fields_of(tmp_path / "out" / "model.gguf")["general.file_type"] == 32
    assert fields_of(tmp_path / "out" / "mmproj.gguf")["general.file_type"] == 0
