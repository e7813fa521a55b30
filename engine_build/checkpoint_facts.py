"""What a checkpoint in Hugging Face layout is, as far as a build must know: its files, its digest, how it is quantised.

Nothing of the weights is interpreted beyond the headers of their files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine_build.checksums import Advance, FileRecord, digest_of, record_files
from engine_build.errors import CheckpointError
from engine_build.gguf_export import check_checkpoint
from engine_build.json_file import read_json_object
from engine_build.model_config import load_model_config
from engine_build.safetensors_checkpoint import LENGTH_BYTES, MAX_HEADER_BYTES

PATTERNS: Final = ("*.safetensors", "*.json", "*.jinja")
"""The files that make up a checkpoint. Its licence and readme change nothing about what it computes."""
FOREIGN: Final = frozenset({"manifest.json"})
PLAIN: Final = "none"
"""Of ``CheckpointFacts.quantisation``: the weights are plain numbers of 16 or 32 bits."""
_STORED: Final = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_FP8_BITS, _FP4_BITS = 8, 4


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """A checkpoint that was read and checked.

    Attributes:
        name: of its folder.
        digest: one SHA-256 for all its files.
        files: by name.
        stored: the type that holds all weights without loss: ``f32``, ``f16`` or ``bf16``; of a quantised checkpoint
            the type of what was not quantised.
        quantisation: ``none``, ``fp8``, ``nvfp4``, or the name of a method that no engine here is given.
        has_vision: it has a vision tower.
    """

    name: str
    digest: str
    files: Mapping[str, FileRecord]
    stored: str
    quantisation: str
    has_vision: bool

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(record.size for record in self.files.values())


def checkpoint_size(directory: Path) -> int:
    """Return the bytes that ``inspect_checkpoint`` will read."""
    return sum((directory / name).stat().st_size for name in _names(directory))


def inspect_checkpoint(directory: Path, advance: Advance | None = None) -> CheckpointFacts:
    """Read every byte of a checkpoint once, and check what can be checked without computing.

    Raises:
        CheckpointError: a file is missing or damaged, or it is not a Gemma 4 that we know.
        EngineBuildError: its tokenizer does not fit.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: is not a folder with a checkpoint in Hugging Face layout")
    config = load_model_config(directory)
    quantisation = _quantisation(directory)
    if quantisation == PLAIN:
        check_checkpoint(directory)
    try:
        types = set().union(*(_header_types(path) for path in sorted(directory.glob("*.safetensors"))))
        files = record_files(directory, _names(directory), advance)
    except OSError as error:
        raise CheckpointError(f"{error.filename or directory}: cannot be read: {error.strerror}") from error
    if not types:
        raise CheckpointError(f"{directory}: no *.safetensors file")
    return CheckpointFacts(
        name=directory.resolve().name,
        digest=digest_of(files),
        files=files,
        stored=_stored(types),
        quantisation=quantisation,
        has_vision=config.vision_config is not None,
    )


def _names(directory: Path) -> list[str]:
    found = {path.name for pattern in PATTERNS for path in directory.glob(pattern) if path.is_file()}
    return sorted(found - FOREIGN)


def _stored(types: set[str]) -> str:
    plain = [_STORED[name] for name in sorted(types) if name in _STORED]
    # float16 and bfloat16 hold different numbers, so only float32 holds both.
    return plain[0] if len(plain) == 1 else "f32"


def _header_types(path: Path) -> set[str]:
    with path.open("rb") as file:
        prefix = file.read(LENGTH_BYTES)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == LENGTH_BYTES else 0
        if not 0 < size <= MAX_HEADER_BYTES:
            raise CheckpointError(f"{path}: is not a safetensors file")
        try:
            header = json.loads(file.read(size))
            return {str(entry["dtype"]) for name, entry in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged header: {error}") from error


def _quantisation(directory: Path) -> str:
    """Return how a checkpoint is quantised, as ModelOpt's or compressed-tensors' record in it says."""
    own = directory / "hf_quant_config.json"
    if own.is_file():
        return _modelopt(read_json_object(own, CheckpointError).get("quantization"))
    recorded = read_json_object(directory / "config.json", CheckpointError).get("quantization_config")
    if not isinstance(recorded, dict):
        return PLAIN
    method = str(recorded.get("quant_method", "unknown"))
    if method == "modelopt":
        return _modelopt(recorded)
    return _compressed(recorded) if method == "compressed-tensors" else method


def _modelopt(record: object) -> str:
    algorithm = str(record.get("quant_algo", "")).lower() if isinstance(record, dict) else ""
    return algorithm if algorithm in ("fp8", "nvfp4") else f"modelopt {algorithm or 'unknown'}"


def _compressed(record: Mapping[str, Any]) -> str:
    groups = record.get("config_groups")
    kinds: set[tuple[str, Any]] = set()
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            kinds.add((str(weights.get("type")), weights.get("num_bits")))
    names: dict[tuple[str, Any], str] = {("float", _FP8_BITS): "fp8", ("float", _FP4_BITS): "nvfp4"}
    return names.get(kinds.pop(), "compressed-tensors") if len(kinds) == 1 else "compressed-tensors"
