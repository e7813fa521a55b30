"""Finds the model's files and reads what they are: the demo checkpoint, or whatever ``NIM_MODEL_PATH`` names.

Nothing is loaded here. A model that cannot be served is refused with the file and the reason.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from config.settings import ModelSettings
from config.settings_profile import Precision
from config.variants import DEFAULT_PROFILE, PROFILES, published_names
from launcher.checkpoint import inspect_checkpoint, is_checkpoint
from launcher.commands.engines import GPU_ENGINES
from launcher.errors import ExitCode, LaunchError
from launcher.gguf_header import GgufError, GgufHeader, read_header
from launcher.memory import ARCHITECTURE, ModelShape, model_shape

PROJECTOR_ARCHITECTURE: Final = "clip"
_PART: Final = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that can be served.

    Attributes:
        weights: the GGUF file to load; of a split model, its first part.
        weight_bytes: size of all files that are loaded.
        projector: the vision tower's GGUF file; None serves text only.
        tokenizer: ``tokenizer.json``; None when it has to be rebuilt from ``weights``.
        names: names for requests, the first is the main one.
        why: the reason for this choice, for people.
        core: the engine that loads it.
        checkpoint: the folder, for an engine that loads Hugging Face layout and no GGUF file.
        precision: number format of a checkpoint's weights; ``bf16`` also stands for wider ones.
        bundle: the engine bundle that it belongs to, for an engine that takes arguments and caches from one.
    """

    weights: Path
    weight_bytes: int
    projector: Path | None
    tokenizer: Path | None
    shape: ModelShape
    names: tuple[str, ...]
    why: str
    core: str = "llama_cpp"
    checkpoint: Path | None = None
    precision: Precision = "bf16"
    bundle: Path | None = None


def find_model(
    settings: ModelSettings, profile: str | None = None, engines: frozenset[str] | None = None
) -> ModelFiles:
    """Find and inspect the model that the settings ask for.

    Args:
        settings: where it is.
        profile: names a demo model.
        engines: that may load it; None are those that are installed here.

    Raises:
        LaunchError: a file is missing or unreadable, or the model is not a Gemma 4.
    """
    if settings.uri is not None:
        raise _refusal(f"{settings.uri} is not on this machine", "download it, and set NIM_MODEL_PATH to its folder")
    if settings.path is None:
        if profile is not None and profile not in PROFILES:
            message = f"NIM_MODEL_PROFILE={profile!r} is not one of {', '.join(PROFILES)}"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "or set NIM_MODEL_PATH")
        name = profile or DEFAULT_PROFILE
        why = "NIM_MODEL_PROFILE" if profile else "the demo model; NIM_MODEL_PATH is not set"
        folder = demo_folder() / name
        if _is_for_checkpoint_engine(folder, settings):
            found = _checkpoint(folder, settings, engines)
            return replace(found, names=settings.served_names or (name,), why=f"{why}, for {found.core}")
        return _inspect(_weights_in(folder), settings, why, (name,))
    path = settings.path.expanduser()
    if _is_for_checkpoint_engine(path, settings):
        return _checkpoint(path, settings, engines)
    weights = _weights_in(path) if path.is_dir() else path
    if settings.engine in GPU_ENGINES and weights.is_file():
        message = f"NIM_ENGINE={settings.engine} loads checkpoints in Hugging Face layout, and {weights} is a GGUF file"
        raise _refusal(message, "leave NIM_ENGINE unset, or name a folder with config.json and *.safetensors")
    return _inspect(weights, settings, "NIM_MODEL_PATH", ())


def _is_for_checkpoint_engine(path: Path, settings: ModelSettings) -> bool:
    if settings.engine == "llama_cpp" or not is_checkpoint(path):
        return False
    return settings.engine != "auto" or not any(path.glob("*.gguf"))


def _checkpoint(folder: Path, settings: ModelSettings, engines: frozenset[str] | None) -> ModelFiles:
    found = inspect_checkpoint(folder, settings, engines)
    return ModelFiles(
        weights=found.weights,
        weight_bytes=found.weight_bytes,
        projector=None,
        tokenizer=found.tokenizer,
        shape=found.shape,
        names=settings.served_names or found.names or (folder.resolve().name,),
        why=f"NIM_MODEL_PATH holds a checkpoint for {found.engine}",
        core=found.engine,
        checkpoint=folder,
        precision=found.precision,
    )


def demo_folder() -> Path:
    """Return the folder of the demo checkpoints, wherever the package ``demo`` is installed."""
    spec = importlib.util.find_spec("demo")
    if spec is None or not spec.submodule_search_locations:
        raise _refusal("the demo checkpoints are not installed", "set NIM_MODEL_PATH")
    return Path(spec.submodule_search_locations[0]) / "checkpoints"


def _inspect(weights: Path, settings: ModelSettings, why: str, names: tuple[str, ...]) -> ModelFiles:
    header = _header(weights, "model")
    architecture = header.text("general.architecture")
    if architecture != ARCHITECTURE:
        raise _refusal(f"{weights} is not a Gemma 4: general.architecture is {architecture or 'missing'}")
    shape = model_shape(header)
    if not shape.layers or not shape.trained_context:
        raise _refusal(f"{weights} is damaged: its header lacks the number of layers or the context length")
    parts = _parts(weights)
    projector = _projector(weights.parent, settings, shape)
    files = [*parts, *([projector] if projector else [])]
    return ModelFiles(
        weights=weights,
        weight_bytes=sum(file.stat().st_size for file in files),
        projector=projector,
        tokenizer=_tokenizer(weights.parent, settings),
        shape=shape,
        names=settings.served_names or names or _names(header, shape, weights),
        why=why,
    )


def _weights_in(folder: Path) -> Path:
    if not folder.is_dir():
        raise _refusal(f"the folder {folder} does not exist")
    found = sorted(file for file in folder.glob("*.gguf") if not _is_projector(file))
    firsts = [file for file in found if not (part := _PART.fullmatch(file.name)) or int(part["part"]) == 1]
    if not firsts:
        raise _refusal(f"the folder {folder} holds no GGUF model", "put one *.gguf file there")
    if len(firsts) > 1:
        listed = ", ".join(file.name for file in firsts)
        raise _refusal(
            f"the folder {folder} holds several models: {listed}", "point NIM_MODEL_PATH at one of the files"
        )
    return firsts[0]


def _parts(weights: Path) -> list[Path]:
    match = _PART.fullmatch(weights.name)
    if match is None:
        return [weights]
    count = int(match["parts"])
    parts = [weights.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if int(match["part"]) != 1:
        raise _refusal(f"{weights} is not the first part of its model", f"point NIM_MODEL_PATH at {parts[0].name}")
    for part in parts:
        if not part.is_file():
            raise _refusal(f"the model's part {part} does not exist")
    return parts


def _projector(folder: Path, settings: ModelSettings, shape: ModelShape) -> Path | None:
    path = settings.mmproj_path.expanduser() if settings.mmproj_path else None
    if path is None:
        found = sorted(file for file in folder.glob("*.gguf") if _is_projector(file))
        if len(found) > 1:
            listed = ", ".join(file.name for file in found)
            raise _refusal(f"{folder} holds several vision towers: {listed}", "set NIM_MMPROJ_PATH to one of them")
        path = found[0] if found else None
    if path is None:
        return None
    header = _header(path, "vision tower")
    if header.text("general.architecture") != PROJECTOR_ARCHITECTURE:
        raise _refusal(f"{path} is not a vision tower: general.architecture is {header.text('general.architecture')}")
    width = header.integer("clip.vision.projection_dim", shape.embedding)
    if width != shape.embedding:
        raise _refusal(
            f"the vision tower {path} is of another model: it is made for width {width}, not {shape.embedding}"
        )
    return path


def _tokenizer(folder: Path, settings: ModelSettings) -> Path | None:
    if settings.tokenizer_path is not None:
        path = settings.tokenizer_path.expanduser()
        if not path.is_file():
            raise _refusal(
                f"the tokenizer file {path} does not exist", "NIM_TOKENIZER_PATH names it; unset it, or mend it"
            )
        return path
    path = folder / "tokenizer.json"
    return path if path.is_file() else None


def _names(header: GgufHeader, shape: ModelShape, weights: Path) -> tuple[str, ...]:
    if weights.resolve().parent.parent == demo_folder().resolve():
        return (weights.resolve().parent.name,)
    return published_names(shape.layers, shape.experts) or (header.text("general.name") or weights.stem,)


def _is_projector(file: Path) -> bool:
    return file.name.lower().startswith("mmproj") or "mmproj" in file.stem.lower()


def _header(path: Path, role: str) -> GgufHeader:
    try:
        return read_header(path)
    except FileNotFoundError as error:
        raise _refusal(f"the {role} file {path} does not exist") from error
    except GgufError as error:
        raise _refusal(f"the {role} file {path} is not a usable GGUF file: {error}") from error
    except (OSError, ValueError) as error:
        raise _refusal(f"the {role} file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _refusal(message: str, remedy: str = "") -> LaunchError:
    return LaunchError(ExitCode.CANNOT_START, message, remedy)
