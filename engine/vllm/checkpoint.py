"""What is known of a checkpoint in Hugging Face layout before vLLM reads it, so that its faults are named plainly."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineLoadError
from engine.vllm.safetensors_file import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from config.runtime import EngineRuntime

MODEL_TYPE = "gemma4"
_LINEAR = re.compile(
    r"(?:model\.)?(?:language_model\.)?(?:model\.)?"
    r"layers\.(?P<module>\d+\.(?:self_attn|mlp)\.[a-z]+_proj)\.weight(?:_packed)?"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts of ``config.json``, which is at ``config``."""

    config: Path
    name: str
    has_vision: bool
    layers: int


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
    text = config.get("text_config")
    layers = text.get("num_hidden_layers") if isinstance(text, dict) else None
    if not isinstance(layers, int):
        message = f"the checkpoint's {folder / 'config.json'} does not tell the number of layers"
        raise EngineLoadError(message)
    return Checkpoint(folder / "config.json", folder.name, bool(config.get("vision_config")), layers)


def linear_shapes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return outputs and inputs of the text model's attention and dense MLP by layer and name: ``0.self_attn.q_proj``.

    Raises:
        EngineLoadError: a file of weights cannot be read.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                tensors = read_tensors(file, path.stat().st_size)
        except (OSError, ValueError) as error:
            message = f"the checkpoint's {path} cannot be read: {error}"
            raise EngineLoadError(message) from error
        for name, tensor in tensors.items():
            match = _LINEAR.fullmatch(name)
            if match is not None and len(tensor.shape) == len(("outputs", "inputs")):
                outputs, inputs = tensor.shape
                # Of NVFP4 two numbers share a byte.
                shapes[match["module"]] = (outputs, inputs * 2 if tensor.dtype == "U8" else inputs)
    return shapes


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
