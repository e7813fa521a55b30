"""What the exporter refuses: the message names the file and the field, and no half-written file stays behind."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine_build.errors import CheckpointError, EngineBuildError, ExportError, TokenizerFileError
from engine_build.gguf_encoding import WeightType
from engine_build.gguf_export import export_checkpoint, main
from engine_build.safetensors_checkpoint import open_checkpoint

if TYPE_CHECKING:
    from tests.engine_build.conftest import Checkpoint

REMOVED = "(removed)"
EMBEDDING = "model.language_model.embed_tokens.weight"
ROUTER_SCALE = "model.language_model.layers.1.router.scale"


def set_at(data: dict[str, Any], path: str, value: object) -> None:
    """Put ``value`` at a dotted path, or remove what is there when it is ``REMOVED``."""
    *parents, last = path.split(".")
    for parent in parents:
        data = data[parent]
    if value == REMOVED:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("model_type", "gemma3", "model_type"),
        ("audio_config", {"hidden_size": 8}, "audio_config"),
        ("text_config", REMOVED, "text_config"),
        ("text_config.hidden_size", REMOVED, "text_config.hidden_size"),
        ("text_config.hidden_size", 0, "text_config.hidden_size"),
        ("text_config.num_kv_shared_layers", 2, "text_config.num_kv_shared_layers"),
        ("text_config.hidden_size_per_layer_input", 256, "text_config.hidden_size_per_layer_input"),
        ("text_config.tie_word_embeddings", False, "text_config.tie_word_embeddings"),
        ("text_config.layer_types", ["full_attention"], "layer_types has 1 entries"),
        ("text_config.layer_types", ["linear", "linear"], "text_config.layer_types.0"),
        ("text_config.layer_types", 3, "text_config.layer_types"),
        ("text_config.top_k_experts", REMOVED, "top_k_experts"),
        ("text_config.rope_parameters.full_attention", REMOVED, "text_config.rope_parameters.full_attention"),
        ("vision_config.use_clipped_linears", True, "vision_config.use_clipped_linears"),
    ],
)
def test_config_of_another_family_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, path: str, value: object, complaint: str
) -> None:
    """A config that is damaged, or of a model that this exporter does not know, is refused with the field's name."""
    set_at(checkpoint.config, path, value)
    checkpoint.save_config()
    with pytest.raises(CheckpointError) as caught:
        export_checkpoint(checkpoint.directory, tmp_path / "out")
    assert "config.json" in caught.value.message
    assert complaint in caught.value.message
    assert not (tmp_path / "out").exists()


def test_missing_tensor_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A checkpoint without one of the model's tensors is refused before anything is written."""
    del checkpoint.tensors[ROUTER_SCALE]
    checkpoint.save_tensors()
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'model.language_model.layers.1.router.scale'"):
        export_checkpoint(checkpoint.directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_tensor_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A tensor that the config does not account for is refused, because it would silently be lost."""
    checkpoint.tensors["model.language_model.layers.1.self_attn.v_proj.weight"] = np.zeros((64, 64), np.float32)
    checkpoint.save_tensors()
    with pytest.raises(CheckpointError, match=r"v_proj.weight' is not part of the model"):
        export_checkpoint(checkpoint.directory, tmp_path / "out")


def test_copy_of_the_embedding_is_ignored(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An output head that some checkpoints repeat changes nothing."""
    plain = export_checkpoint(checkpoint.directory, tmp_path / "a")
    checkpoint.tensors["lm_head.weight"] = checkpoint.tensors[EMBEDDING]
    checkpoint.save_tensors()
    repeated = export_checkpoint(checkpoint.directory, tmp_path / "b")
    assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in repeated]


def test_wrong_shape_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A tensor whose shape does not follow from the config is refused with both shapes."""
    checkpoint.tensors[ROUTER_SCALE] = np.ones(63, np.float32)
    checkpoint.save_tensors()
    with pytest.raises(CheckpointError, match=r"router.scale': shape \[63\], config.json makes it \[64\]"):
        export_checkpoint(checkpoint.directory, tmp_path / "out")


def test_vocabulary_of_another_size_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A tokenizer that does not fit the embedding is refused with both sizes."""
    checkpoint.config["text_config"]["vocab_size"] += 1
    checkpoint.save_config()
    with pytest.raises(CheckpointError, match=r"tokenizer.json has \d+ tokens, text_config.vocab_size is \d+"):
        export_checkpoint(checkpoint.directory, tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("model.type", "WordPiece", "must be BPE"),
        ("model.byte_fallback", False, "must be BPE"),
        ("model.vocab", [], "model.vocab"),
        ("model.merges", [["a"]], "model.merges"),
        ("model.merges", [], "model.merges"),
        ("model.vocab.zzz", 100_000, "without gaps"),
        ("model.vocab.zzz", 5, "without gaps"),
        ("added_tokens", [{"id": 3}], "added_tokens"),
        ("added_tokens", 3, "added_tokens"),
    ],
)
def test_damaged_tokenizer_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, path: str, value: object, complaint: str
) -> None:
    """A tokenizer that llama.cpp could not follow is refused with what is wrong in it."""
    set_at(checkpoint.tokenizer, path, value)
    (checkpoint.directory / "tokenizer.json").write_text(json.dumps(checkpoint.tokenizer), encoding="utf-8")
    with pytest.raises(TokenizerFileError, match=complaint):
        export_checkpoint(checkpoint.directory, tmp_path / "out")


def test_tokenizer_without_a_turn_end_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A vocabulary without the token that ends a turn is not a Gemma 4's."""
    text = json.dumps(checkpoint.tokenizer).replace("<turn|>", "<over|>")
    (checkpoint.directory / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(TokenizerFileError, match=r"lacks the token <turn\|>"):
        export_checkpoint(checkpoint.directory, tmp_path / "out")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(checkpoint: Checkpoint, tmp_path: Path, value: float) -> None:
    """A checkpoint with NaN or infinity is refused, and the file that was being written is gone."""
    checkpoint.tensors[EMBEDDING][3, 5] = value
    checkpoint.save_tensors()
    with pytest.raises(ExportError, match=r"embed_tokens.weight': has values that are not finite"):
        export_checkpoint(checkpoint.directory, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_values_beyond_float16_are_refused_in_float16_only(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A weight that float16 would turn into infinity is refused with a remedy; bfloat16 takes it."""
    checkpoint.tensors[EMBEDDING][3, 5] = 2.0**17
    checkpoint.save_tensors()
    with pytest.raises(ExportError, match=r"beyond float16; use bf16 or f32"):
        export_checkpoint(checkpoint.directory, tmp_path / "out", WeightType.F16)
    assert export_checkpoint(checkpoint.directory, tmp_path / "out", WeightType.BF16)


def test_failed_export_keeps_the_files_of_the_last_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A file that exists is replaced by a whole new one or not at all."""
    model = export_checkpoint(checkpoint.directory, tmp_path / "out")[0]
    before = model.read_bytes()
    checkpoint.tensors[EMBEDDING][0, 0] = np.nan
    checkpoint.save_tensors()
    with pytest.raises(ExportError):
        export_checkpoint(checkpoint.directory, tmp_path / "out")
    assert model.read_bytes() == before


def _header(entries: object, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x02",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 50) + b"{}",
        struct.pack("<Q", 2) + b"\xff\xfe",
        _header([]),
        _header({"a": []}),
        _header({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, bytes(4)),
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(8)),
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(8)),
        _header({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(8)),
        _header({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    ],
)
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    """Weights that are not safetensors, are cut, or promise more than the file holds are refused by name."""
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "weight_map", [[], {"a": "../model.safetensors"}, {"a": "absent.safetensors"}, {"zzz": "model.safetensors"}]
)
def test_damaged_index_is_refused(checkpoint: Checkpoint, weight_map: object) -> None:
    """An index must name shards that exist beside it and tensors that they have."""
    index = checkpoint.directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    with pytest.raises(CheckpointError):
        open_checkpoint(checkpoint.directory)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(checkpoint: Checkpoint, tmp_path: Path, name: str) -> None:
    """A directory without one of the files of a checkpoint is refused."""
    (checkpoint.directory / name).unlink()
    with pytest.raises(EngineBuildError, match=r"safetensors" if name.startswith("model") else name):
        export_checkpoint(checkpoint.directory, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("generation_config.json", '{"top_k": "many"}', "top_k"),
        ("processor_config.json", '{"image_processor": {"image_mean": [0], "image_std": [1, 1, 1]}}', "image_mean"),
        ("tokenizer_config.json", "{", "JSON"),
    ],
)
def test_damaged_side_file_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, name: str, content: str, field: str
) -> None:
    """The small files beside the config are checked too."""
    (checkpoint.directory / name).write_text(content, encoding="utf-8")
    with pytest.raises(EngineBuildError, match=rf"{name}.*{field}"):
        export_checkpoint(checkpoint.directory, tmp_path / "out")


def test_command_line_fails_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bad checkpoint gives exit status 1 and one error line that names the file."""
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/config.json: cannot be read: No such file or directory"
    ]
