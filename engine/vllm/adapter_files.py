"""One LoRA adapter on disk, in PEFT's layout: what it must be to be served, and the private copy that is served.

Two files are read, ``adapter_config.json`` and ``adapter_model.safetensors``; nothing in them is run. vLLM gets a copy,
because it reads an adapter again whenever it has forgotten it, and ends when the files are not what they were.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

from engine.vllm.safetensors_file import LENGTH, StoredTensor, read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
MAX_CONFIG_BYTES: Final = 2**20
PIECE_BYTES: Final = 2**24
TYPES: Final = ("F32", "F16", "BF16")
UNSUPPORTED: Final = (
    "use_dora", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication",
    "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "use_bdlora", "use_qalora",
)  # fmt: skip
"""Fields of a configuration that make an adapter more than two matrices per layer; vLLM has nothing for most of them,
and what changes the scale of single layers is not carried over to the copy."""
PLAIN_STARTS: Final = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of ``init_lora_weights`` after which an adapter still belongs to the unchanged model."""
_TENSOR: Final = re.compile(
    r"base_model\.model\.(?:model\.)?(?:language_model\.)?(?:model\.)?"
    r"layers\.(?P<module>\d+\.(?:self_attn|mlp)\.[a-z]+_proj)\.lora_(?P<half>[AB])\.weight"
)
_CANONICAL: Final = "base_model.model.model.language_model.layers.{module}.lora_{half}.weight"


class AdapterError(Exception):
    """An adapter cannot be served; the message names the file and says why."""


def copy_adapter(source: Path, root: Path, target: Path, shapes: Mapping[str, tuple[int, int]], max_rank: int) -> None:
    """Check the adapter in the folder ``source`` and write the copy that vLLM loads into the new folder ``target``.

    Args:
        source: the adapter's folder.
        root: the folder of all adapters, which no link may lead out of.
        target: where the copy goes.
        shapes: outputs and inputs of the model's matrices by layer and name, such as ``0.self_attn.q_proj``.
        max_rank: the largest rank that is served.

    Raises:
        AdapterError: it is broken, of another model, or uses what is not served.
        OSError: the copy cannot be written.
    """
    config = _read_config(source / CONFIG, root)
    rank = _check_config(config, max_rank)
    with _opened(source / WEIGHTS, root) as (file, size):
        try:
            tensors = read_tensors(file, size)
        except ValueError as error:
            raise AdapterError(f"{WEIGHTS}: {error}") from error
        pairs = _pairs(tensors)
        for module, halves in pairs.items():
            _check_pair(module, halves, rank, shapes)
        target.mkdir()
        _write_weights(target / WEIGHTS, file, _with_values(pairs, shapes))
    plain = {"peft_type": "LORA", "bias": "none", "r": rank, "lora_alpha": config["lora_alpha"]}
    plain |= {
        "use_rslora": bool(config.get("use_rslora")),
        "target_modules": sorted({name.split(".")[-1] for name in pairs}),
    }
    (target / CONFIG).write_text(json.dumps(plain), encoding="utf-8")


@contextmanager
def _opened(path: Path, root: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open a plain file below ``root``; yield it and its size, and see that it has not changed at the end."""
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise AdapterError(f"{path.name} is a link that leads out of the folder of adapters")
        # A pipe would be waited for; it opens at once so, and is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise AdapterError(f"{path.name} is not a plain file")
            yield file, before.st_size
            after = os.fstat(descriptor)
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(path):
            raise
        raise AdapterError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise AdapterError(f"{path.name} was changed while it was read")


def _read_config(path: Path, root: Path) -> dict[str, Any]:
    with _opened(path, root) as (file, size):
        if size > MAX_CONFIG_BYTES:
            raise AdapterError(f"{CONFIG} has {size} bytes; {MAX_CONFIG_BYTES} at most are read")
        text = file.read(MAX_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{CONFIG} is not JSON") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{CONFIG} is not a JSON object")
    return config


def _check_config(config: dict[str, Any], max_rank: int) -> int:
    """Check a configuration and return the rank."""
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{CONFIG}: peft_type is {config.get('peft_type')!r}; only LORA is served")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise AdapterError(f"{CONFIG}: r is {rank!r}, not a whole number from 1 on")
    if rank > max_rank:
        raise AdapterError(f"{CONFIG}: the rank is {rank}; NIM_MAX_LORA_RANK allows {max_rank}")
    if type(alpha) not in (int, float):
        raise AdapterError(f"{CONFIG}: lora_alpha is {alpha!r}, not a number")
    used = next((name for name in UNSUPPORTED if config.get(name)), None)
    if used is not None:
        raise AdapterError(f"{CONFIG}: {used} is set, and adapters that use it are not served")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{CONFIG}: bias is {config['bias']!r}; adapters with biases are not served")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        raise AdapterError(f"{CONFIG}: init_lora_weights is {start!r}, so it belongs to weights that PEFT has changed")
    return rank


def _pairs(tensors: Mapping[str, StoredTensor]) -> dict[str, dict[str, StoredTensor]]:
    """Return the two halves of each matrix's change by the matrix's name."""
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            message = (
                f"{WEIGHTS}: {name[:200]} is no change of attention or dense MLP of the text model, all that is served"
            )
            raise AdapterError(message)
        if tensor.dtype not in TYPES:
            raise AdapterError(f"{WEIGHTS}: {name} has the type {tensor.dtype}; served are {', '.join(TYPES)}")
        pairs.setdefault(match["module"], {})[match["half"]] = tensor
    if not pairs:
        raise AdapterError(f"{WEIGHTS}: it holds no tensor")
    return pairs


def _check_pair(
    module: str, halves: Mapping[str, StoredTensor], rank: int, shapes: Mapping[str, tuple[int, int]]
) -> None:
    if set(halves) != {"A", "B"}:
        raise AdapterError(f"{WEIGHTS}: layers.{module} has lora_{min(halves)} only")
    if module not in shapes:
        raise AdapterError(f"{WEIGHTS}: the model has no layers.{module}")
    outputs, inputs = shapes[module]
    for half, wanted in (("A", (rank, inputs)), ("B", (outputs, rank))):
        if halves[half].shape != wanted:
            message = f"{WEIGHTS}: lora_{half} of layers.{module} has the shape {list(halves[half].shape)}"
            raise AdapterError(f"{message}; for this model and rank it is {list(wanted)}")


def _with_values(
    pairs: Mapping[str, Mapping[str, StoredTensor]], shapes: Mapping[str, tuple[int, int]]
) -> dict[str, StoredTensor]:
    """Return the tensors of the copy by name.

    Global layers of Gemma 4 have no projection of values: they use the keys'. A change of that one changes both, which
    vLLM, where they are two, has to be told.
    """
    copy: dict[str, StoredTensor] = {}
    for module, halves in pairs.items():
        names = [module]
        if module.endswith("k_proj"):
            values = module.removesuffix("k_proj") + "v_proj"
            names += [] if values in shapes else [values]
        copy |= {_CANONICAL.format(module=name, half=half): halves[half] for name in names for half in ("A", "B")}
    return copy


def _write_weights(path: Path, file: IO[bytes], tensors: Mapping[str, StoredTensor]) -> None:
    header, place = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (place, place + tensor.size)}
        place += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH.size)
    with path.open("wb") as copy:
        copy.write(LENGTH.pack(len(text)) + text)
        for name, tensor in tensors.items():
            file.seek(tensor.offset)
            for start in range(0, tensor.size, PIECE_BYTES):
                wanted = min(PIECE_BYTES, tensor.size - start)
                if copy.write(file.read(wanted)) != wanted:
                    raise AdapterError(f"{WEIGHTS} was changed while it was read: {name} ends early")
