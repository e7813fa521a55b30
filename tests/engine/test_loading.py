"""What the engine says about files that it cannot load."""

from __future__ import annotations

import subprocess
import sys

import gguf
import numpy as np
import pytest

from engine.errors import EngineLoadError
from engine.llama_cpp.core import LlamaCppCore


def write_gguf(path, architecture, numbers, tensors):
    """Write a GGUF file with some header numbers and zero-filled tensors of the given shapes."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in numbers.items():
        writer.add_key_value(f"{architecture}.{name}", value, gguf.GGUFValueType.UINT32)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_string("tokenizer.ggml.model", "none")
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def unknown_architecture(tmp_path):
    return write_gguf(tmp_path / "unknown.gguf", "nonesuch", {}, {"nothing": (1, 32)})


@pytest.fixture
def llama(tmp_path):
    """A complete model of another architecture that llama.cpp loads."""
    numbers = {
        "context_length": 64,
        "embedding_length": 32,
        "block_count": 1,
        "feed_forward_length": 32,
        "attention.head_count": 1,
        "attention.head_count_kv": 1,
        "rope.dimension_count": 32,
        "vocab_size": 32,
    }
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = {f"blk.0.{name}.weight": (32, 32) for name in names}
    tensors |= {f"{name}.weight": (32,) for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")}
    return write_gguf(tmp_path / "llama.gguf", "llama", numbers, {"token_embd.weight": (32, 32)} | tensors)


@pytest.fixture
def cut_short(model_dir, tmp_path):
    """The model file without its last part, as a broken download leaves it."""
    path = tmp_path / "cut.gguf"
    content = (model_dir / "model.gguf").read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


@pytest.fixture
def missing(tmp_path):
    return tmp_path / "missing.gguf"


@pytest.fixture
def text_model(model_dir):
    return model_dir / "model.gguf"


@pytest.fixture
def no_gguf(tmp_path):
    path = tmp_path / "page.gguf"
    path.write_text("<html>Not found</html>", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("field", "file", "reason"),
    [
        ("model_path", "missing", "No such file"),
        ("model_path", "no_gguf", "not a GGUF file"),
        ("model_path", "cut_short", "corrupted or incomplete"),
        ("model_path", "unknown_architecture", "nonesuch"),
        ("model_path", "llama", "of architecture 'llama'"),
        ("mmproj_path", "missing", "No such file"),
        ("mmproj_path", "no_gguf", "not a GGUF file"),
        ("mmproj_path", "text_model", "mmproj"),
        ("tokenizer_path", "missing", "No such file"),
        ("tokenizer_path", "no_gguf", "does not fit"),
    ],
)
def test_the_message_names_file_and_reason(request, make_runtime, field, file, reason):
    """A file that is missing, damaged or of another kind gives an EngineLoadError that says so."""
    path = request.getfixturevalue(file)
    with pytest.raises(EngineLoadError, match=reason) as caught:
        LlamaCppCore(make_runtime(**{field: path}))
    assert str(path) in caught.value.message


def test_the_vision_tower_of_another_model_is_refused(make_runtime, model_dir, tmp_path):
    """An mmproj whose embeddings have another width than the text model's is not used."""
    path = tmp_path / "wide.gguf"
    reader = gguf.GGUFReader(model_dir / "mmproj.gguf")
    writer = gguf.GGUFWriter(path, "clip")
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = entry.types[0]
        element = entry.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        value = entry.contents()
        if name.endswith("projection_dim"):
            value += 64
        writer.add_key_value(name, value, kind, sub_type=element)
    for tensor in reader.tensors:
        data = tensor.data
        if tensor.name == "mm.input_projection.weight":
            data = np.concatenate((data, data[:64]), axis=0)
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(EngineLoadError, match="mismatch"):
        LlamaCppCore(make_runtime(mmproj_path=path))


def test_the_process_exits_with_one_clear_line(start_process, tmp_path):
    """A model that cannot be loaded ends the process with status 1 and the reason as the last line."""
    process = start_process(model_path=tmp_path / "missing.gguf")
    assert process.process.wait(100) == 1
    last = process.errors().strip().splitlines()[-1]
    assert last.startswith("engine: the model file")
    assert "No such file" in last


def test_a_runtime_file_that_does_not_parse_is_named(tmp_path):
    """Settings that cannot be read give status 2."""
    path = tmp_path / "runtime.json"
    path.write_text("{}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "engine", "--runtime", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert str(path) in done.stderr
