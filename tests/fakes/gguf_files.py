"""Writes small GGUF files: headers as real as llama.cpp's, tensors only where a test needs their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np


def write_gguf(path: Path, architecture: str, values: dict[str, Any] | None = None, payload: int = 64) -> Path:
    """Write a file of ``architecture`` with ``values`` in its header and one tensor of ``payload`` floats."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (values or {}).items():
        _add(writer, key, value)
    writer.add_tensor("token_embd.weight", np.zeros(payload, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gemma4_values(layers: int = 6, context: int = 8192, **changes: Any) -> dict[str, Any]:
    """Return the header of a Gemma 4 with five sliding layers to one global layer."""
    values = {
        "general.name": "Tiny",
        "gemma4.block_count": layers,
        "gemma4.context_length": context,
        "gemma4.embedding_length": 128,
        "gemma4.feed_forward_length": 192,
        "gemma4.attention.head_count": 4,
        "gemma4.attention.head_count_kv": [1 if index % 6 == 5 else 2 for index in range(layers)],
        "gemma4.attention.sliding_window": 1024,
        "gemma4.attention.sliding_window_pattern": [index % 6 != 5 for index in range(layers)],
        "gemma4.attention.key_length": 64,
        "gemma4.attention.value_length": 64,
        "gemma4.attention.key_length_swa": 32,
        "gemma4.attention.value_length_swa": 32,
        "tokenizer.ggml.tokens": ["<pad>", "<eos>", "<bos>", "a", "b"],
    }
    return values | changes


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
