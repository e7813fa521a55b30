"""What is known of a checkpoint in Hugging Face layout before vLLM reads it, so that its faults are named plainly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from config.runtime import EngineRuntime

MODEL_TYPE = "gemma4"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts of ``config.json``, which is at ``config``."""

    config: Path
    name: str
    has_vision: bool


def check_checkpoint(runtime: EngineRuntime) -> Checkpoint:
    """Look at the checkpoint of a runtime.

    Raises:
        EngineLoadError: the folder, ``config.json`` or the weights are missing, or it is no Gemma 4.
    """
    folder = runtime.checkpoint_path
    if folder is None:
        message = "vllm loads a checkpoint in Hugging Face layout; none is named"
        raise EngineLoadError(message)
    config = _config(folder)
    if config.get("model_type") != MODEL_TYPE:
        message = f"the checkpoint {folder} is not a Gemma 4: model_type is {config.get('model_type')!r}"
        raise EngineLoadError(message)
    if not any(folder.glob("*.safetensors")):
        message = f"the checkpoint {folder} holds no *.safetensors file"
        raise EngineLoadError(message)
    return Checkpoint(folder / "config.json", folder.name, bool(config.get("vision_config")))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"the checkpoint's {path} cannot be read: {error.strerror}"
        raise EngineLoadError(message) from error
    except ValueError as error:
        message = f"the checkpoint's {path} is not JSON: {error}"
        raise EngineLoadError(message) from error
    if not isinstance(content, dict):
        message = f"the checkpoint's {path} is not a JSON object"
        raise EngineLoadError(message)
    return content
