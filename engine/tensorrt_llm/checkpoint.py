"""What the core must know of a checkpoint in Hugging Face layout: ids by name, sizes, how its weights are stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineLoadError

if TYPE_CHECKING:
    from pathlib import Path

QUANTISED = ("fp8", "nvfp4")
"""Precisions that a checkpoint must have been stored in; TensorRT-LLM quantises nothing while it loads."""
TEXT_MODEL = "gemma4_text"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts of one checkpoint; ``image_id`` is None when it has no vision tower."""

    name: str
    vocab_size: int
    pad_id: int
    end_id: int
    image_id: int | None


def read_checkpoint(folder: Path, precision: str) -> Checkpoint:
    """Read ``config.json``.

    Raises:
        EngineLoadError: it is missing or no Gemma 4's, or its weights are not stored in the wanted precision.
    """
    config = _read_json(folder / "config.json")
    if config.get("model_type") not in ("gemma4", TEXT_MODEL):
        message = f"{folder}/config.json: model_type is {config.get('model_type')!r}, not 'gemma4'"
        raise EngineLoadError(message)
    stored = (folder / "hf_quant_config.json").exists() or "quantization_config" in config
    if precision in QUANTISED and not stored:
        message = (
            f"{folder} holds unquantised weights, but precision is {precision}: quantise it first "
            "(gemma4-nim build), or name a checkpoint that is"
        )
        raise EngineLoadError(message)
    text: dict[str, Any] = config.get("text_config", config)
    image_id = config.get("image_token_id") if config.get("vision_config") is not None else None
    ends = text.get("eos_token_id")
    try:
        return Checkpoint(
            name=folder.name,
            vocab_size=int(text["vocab_size"]),
            pad_id=int(text["pad_token_id"]),
            end_id=int(text["eos_token_id"][0] if isinstance(ends, list) else text["eos_token_id"]),
            image_id=int(image_id) if image_id is not None else None,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        message = f"{folder}/config.json is damaged: {type(error).__name__}: {error}"
        raise EngineLoadError(message) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise EngineLoadError(message) from error
    except ValueError as error:
        message = f"{path} is no JSON: {error}"
        raise EngineLoadError(message) from error
    if not isinstance(content, dict):
        message = f"{path} holds no object"
        raise EngineLoadError(message)
    return content
