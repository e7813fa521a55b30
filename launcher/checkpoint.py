"""Inspects a checkpoint in Hugging Face layout, the form that the engines for GPUs load.

Nothing is loaded here: ``config.json`` tells the shape. Which engine serves it is ``NIM_ENGINE``'s word, else the best
one that is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.settings import ModelSettings
from config.settings_profile import Precision
from config.variants import published_names
from launcher.commands.engines import GPU_ENGINES, available_engines
from launcher.errors import ExitCode, LaunchError
from launcher.memory import ARCHITECTURE, CACHE_ELEMENT_BYTES, ModelShape

PREFERENCE: Final = ("tensorrt_llm", "vllm")
"""Of the installed engines the first is taken."""


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """A checkpoint that can be served.

    Attributes:
        weights: the first of the files that are loaded.
        weight_bytes: size of all of them.
        names: names for requests; empty when it is no published model.
        precision: number format of the weights.
        engine: what loads it.
    """

    weights: Path
    weight_bytes: int
    tokenizer: Path
    shape: ModelShape
    names: tuple[str, ...]
    precision: Precision
    engine: str


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a model in Hugging Face layout."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def inspect_checkpoint(folder: Path, settings: ModelSettings, engines: frozenset[str] | None = None) -> CheckpointFiles:
    """Return what is known of a checkpoint.

    Args:
        folder: where it is.
        settings: which engine and which tokenizer.
        engines: that may load it; None are those that are installed here.

    Raises:
        LaunchError: it is damaged or no Gemma 4, or none of these engines loads it.
    """
    config = _config(folder)
    if config.get("model_type") != ARCHITECTURE:
        raise _refusal(f"{folder} is not a Gemma 4: model_type is {config.get('model_type') or 'missing'}")
    tokenizer = settings.tokenizer_path or folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise _refusal(f"the tokenizer file {tokenizer} does not exist", "set NIM_TOKENIZER_PATH")
    try:
        shape = _shape(config["text_config"])
    except (KeyError, TypeError, ValueError) as error:
        raise _refusal(f"{folder / 'config.json'} is damaged: {error!r}") from error
    weights = sorted(folder.glob("*.safetensors"))
    return CheckpointFiles(
        weights=weights[0],
        weight_bytes=sum(file.stat().st_size for file in weights),
        tokenizer=tokenizer,
        shape=shape,
        names=published_names(shape.layers, shape.experts),
        precision=_precision(config.get("quantization_config")),
        engine=_engine(folder, settings, available_engines() if engines is None else engines),
    )


def _engine(folder: Path, settings: ModelSettings, installed: frozenset[str]) -> str:
    if settings.engine != "auto":
        if settings.engine not in installed:
            message = f"NIM_ENGINE={settings.engine} is not installed here"
            raise _refusal(message, f"start the image that is made for it, or one of {', '.join(sorted(installed))}")
        return settings.engine
    found = [engine for engine in PREFERENCE if engine in installed]
    if not found:
        raise _refusal(
            f"the folder {folder} holds a checkpoint in Hugging Face layout, which {' and '.join(sorted(GPU_ENGINES))} "
            "load, and neither is installed here",
            "gemma4-nim build makes a GGUF model of it, or start the image that is made for one of them",
        )
    return found[0]


def _shape(text: Mapping[str, Any]) -> ModelShape:
    sliding = tuple(kind == "sliding_attention" for kind in text["layer_types"])
    narrow = int(text["num_key_value_heads"]) * int(text["head_dim"])
    wide = int(text.get("num_global_key_value_heads") or text["num_key_value_heads"]) * int(
        text.get("global_head_dim") or text["head_dim"]
    )
    experts = int(text.get("num_experts") or 0)
    active = int(text.get("top_k_experts") or 0) * int(text.get("moe_intermediate_size") or 0)
    return ModelShape(
        layers=int(text["num_hidden_layers"]),
        trained_context=int(text["max_position_embeddings"]),
        embedding=int(text["hidden_size"]),
        feed_forward=int(text["intermediate_size"]) + active,
        experts=experts,
        vocab=int(text["vocab_size"]),
        window=int(text["sliding_window"]),
        cache_bytes_per_token=tuple(
            2 * (narrow if is_sliding else wide) * CACHE_ELEMENT_BYTES for is_sliding in sliding
        ),
        sliding=sliding,
    )


def _precision(quantised: object) -> Precision:
    """Return the number format that ``quantization_config`` tells of; its writers differ in how they say it."""
    words = json.dumps(quantised).lower()
    if quantised is None:
        return "bf16"
    return "nvfp4" if "nvfp4" in words or '"num_bits": 4' in words else "fp8"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refusal(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _refusal(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _refusal(f"{path} is not a JSON object")
    return content


def _refusal(message: str, remedy: str = "") -> LaunchError:
    return LaunchError(ExitCode.CANNOT_START, message, remedy)
