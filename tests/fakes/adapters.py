"""LoRA adapters with random weights, in PEFT's layout, and checkpoints into which one is merged."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TYPES = {"F16": np.float16, "F32": np.float32}
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
Tensors = dict[str, NDArray[Any]]


def read_tensors(path: Path) -> Tensors:
    """Return all tensors of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[8 + length + begin : 8 + length + end], TYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file."""
    header, place = {}, 0
    for name, values in tensors.items():
        size = values.nbytes
        header[name] = {
            "dtype": NAMES[values.dtype], "shape": list(values.shape), "data_offsets": [place, place + size],
        }  # fmt: skip
        place += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(values.tobytes() for values in tensors.values()))


def adapter_tensors(checkpoint: Path, seed: int, rank: int = 4) -> Tensors:
    """Return random halves for attention and dense MLP of every layer of the text model."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, weights in read_tensors(checkpoint / "model.safetensors").items():
        if ".language_model.layers." in name and name.endswith("_proj.weight"):
            outputs, inputs = weights.shape
            module = "base_model.model." + name.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = random.normal(0, 0.05, (rank, inputs)).astype(np.float32)
            tensors[f"{module}.lora_B.weight"] = random.normal(0, 0.05, (outputs, rank)).astype(np.float32)
    return tensors


def adapter_config(rank: int = 4, alpha: float = 32) -> dict[str, Any]:
    """Return what PEFT writes beside them, as far as it matters."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "a model", "bias": "none"} | {
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": targets, "use_rslora": False,
    }  # fmt: skip


def write_adapter(folder: Path, tensors: Mapping[str, NDArray[Any]], **config: Any) -> Path:
    """Write an adapter; ``config`` changes what its configuration says."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors)
    (folder / CONFIG).write_text(json.dumps(adapter_config() | config), encoding="utf-8")
    return folder


def merge_adapter(checkpoint: Path, adapter: Path, target: Path) -> Path:
    """Write a copy of a checkpoint whose weights have the adapter in them: W + B A alpha / r."""
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    changes = read_tensors(adapter / WEIGHTS)
    merged: Tensors = {}
    for name, weights in read_tensors(checkpoint / "model.safetensors").items():
        module = "base_model.model." + name.removesuffix(".weight")
        if f"{module}.lora_A.weight" in changes:
            low, high = changes[f"{module}.lora_A.weight"], changes[f"{module}.lora_B.weight"]
            merged[name] = weights.astype(np.float32) + scale * (high @ low)
        else:
            merged[name] = weights.astype(np.float32)
    target.mkdir()
    for file in checkpoint.glob("*.json"):
        shutil.copy(file, target)
    write_tensors(target / "model.safetensors", merged)
    return target
