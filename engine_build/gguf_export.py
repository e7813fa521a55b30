"""Exports a Gemma 4 checkpoint in Hugging Face layout to what the llama.cpp engine loads.

``python -m engine_build.gguf_export HF_DIRECTORY OUT_DIRECTORY [--type f16]`` writes ``model.gguf``, ``mmproj.gguf``
(when the checkpoint has a vision tower) and ``tokenizer.json``. One tensor at a time is in memory. Each file appears
whole or not at all. Formats are left to the modules that it joins.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFType, GGUFWriter

from engine_build import gguf_metadata
from engine_build.checksums import Advance
from engine_build.errors import CheckpointError, EngineBuildError
from engine_build.gguf_encoding import encode, encoded_bytes
from engine_build.gguf_tensors import TEXT_PREFIX, TensorPlan, text_tensors, vision_tensors
from engine_build.gguf_types import Mixture, WeightType, types_of
from engine_build.gguf_vocabulary import Vocabulary, load_vocabulary
from engine_build.json_file import replacing
from engine_build.model_config import ModelConfig, VisionConfig, load_model_config
from engine_build.safetensors_checkpoint import StoredTensor, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

MODEL_NAME = "model.gguf"
PROJECTOR_NAME = "mmproj.gguf"
TOKENIZER_NAME = "tokenizer.json"
# Tensors that some checkpoints carry and no one needs: the output head is the embedding.
IGNORED_TENSORS = frozenset({"lm_head.weight", f"{TEXT_PREFIX}.lm_head.weight"})


@dataclass(frozen=True, slots=True)
class Export:
    """A checkpoint that was read and checked, and how it is to be written.

    ``vision_type`` may differ from ``weight_type``: the tower is small, and quantising it gains little. ``advance`` is
    told the bytes of the checkpoint that are done.
    """

    directory: Path
    name: str
    config: ModelConfig
    vocabulary: Vocabulary
    tensors: dict[str, StoredTensor]
    weight_type: WeightType
    vision_type: WeightType
    advance: Advance | None = None


@dataclass(frozen=True, slots=True)
class TensorJob:
    """One tensor on its way from the checkpoint to a GGUF file."""

    plan: TensorPlan
    stored: StoredTensor
    encoding: GGMLQuantizationType


def export_checkpoint(
    directory: Path,
    out_directory: Path,
    weight_type: WeightType = WeightType.F16,
    vision_type: WeightType | None = None,
    name: str | None = None,
    *,
    advance: Advance | None = None,
) -> list[Path]:
    """Write the GGUF files and the tokenizer of the checkpoint in ``directory``, and return their paths.

    ``vision_type`` None means f32 for f32 and f16 otherwise. ``name`` is what tools show; None takes the directory's.
    ``advance`` is told the bytes of weights that were read since it was called last.

    Raises:
        EngineBuildError: one of its subclasses; nothing of the file at fault is then left behind.
    """
    export = replace(_opened(directory, weight_type, vision_type, name), advance=advance)
    text, vision = _checked_plans(export)
    written = [_write_model(export, text, out_directory / MODEL_NAME)]
    if export.config.vision_config is not None:
        written.append(_write_projector(export, export.config.vision_config, vision, out_directory / PROJECTOR_NAME))
    tokenizer = out_directory / TOKENIZER_NAME
    with replacing(tokenizer) as temporary:
        shutil.copyfile(directory / TOKENIZER_NAME, temporary)
    return [*written, tokenizer]


def check_checkpoint(directory: Path) -> None:
    """See that a checkpoint has every tensor that its config promises, in its shape, and a tokenizer that fits.

    Raises:
        EngineBuildError: one of its subclasses names the file and the tensor.
    """
    _checked_plans(_opened(directory, WeightType.F16, None, None))


def _opened(directory: Path, weight_type: WeightType, vision_type: WeightType | None, name: str | None) -> Export:
    if vision_type is None:
        vision_type = WeightType.F32 if weight_type is WeightType.F32 else WeightType.F16
    return Export(
        directory=directory,
        name=name or directory.resolve().name,
        config=load_model_config(directory),
        vocabulary=load_vocabulary(directory),
        tensors=open_checkpoint(directory),
        weight_type=weight_type,
        vision_type=vision_type,
    )


def _checked_plans(export: Export) -> tuple[list[TensorPlan], list[TensorPlan]]:
    """Return what to write for text and vision, after comparing it with what the checkpoint has."""
    config = export.config
    tokens, rows = len(export.vocabulary.tokens), config.text_config.vocab_size
    if tokens != rows:
        msg = f"{export.directory}: tokenizer.json has {tokens} tokens, text_config.vocab_size is {rows}"
        raise CheckpointError(msg)
    text = list(text_tensors(config.text_config))
    vision: list[TensorPlan] = []
    if config.vision_config is not None:
        vision = list(vision_tensors(config.vision_config, config.text_config.hidden_size))
    for plan in (*text, *vision):
        stored = export.tensors.get(plan.source)
        if stored is None:
            msg = f"{export.directory}: lacks the tensor {plan.source!r}"
            raise CheckpointError(msg)
        if stored.shape != plan.shape:
            found, wanted = list(stored.shape), list(plan.shape)
            msg = f"{stored.path}: tensor {plan.source!r}: shape {found}, config.json makes it {wanted}"
            raise CheckpointError(msg)
    unknown = set(export.tensors) - {plan.source for plan in (*text, *vision)} - IGNORED_TENSORS
    if unknown:
        msg = f"{export.directory}: tensor {min(unknown)!r} is not part of the model in config.json"
        raise CheckpointError(msg)
    return text, vision


def _write_model(export: Export, plans: Sequence[TensorPlan], path: Path) -> Path:
    """Write ``model.gguf``."""
    writer = GGUFWriter(None, "gemma4")
    factors = gguf_metadata.full_rope_factors(export.config.text_config)
    writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    jobs = _announce(writer, export, plans, export.weight_type)
    gguf_metadata.add_general(writer, GGUFType.MODEL, export.name, export.weight_type, export.directory)
    gguf_metadata.add_text_metadata(writer, export.config.text_config)
    export.vocabulary.write_to(writer)
    _write(writer, path, jobs, (factors, export.advance))
    return path


def _write_projector(export: Export, vision: VisionConfig, plans: Sequence[TensorPlan], path: Path) -> Path:
    """Write ``mmproj.gguf``."""
    writer = GGUFWriter(None, "clip")
    jobs = _announce(writer, export, plans, export.vision_type)
    gguf_metadata.add_general(writer, GGUFType.MMPROJ, export.name, export.vision_type, export.directory)
    gguf_metadata.add_vision_metadata(writer, export.config, vision, export.directory)
    _write(writer, path, jobs, (None, export.advance))
    return path


def _announce(
    writer: GGUFWriter, export: Export, plans: Sequence[TensorPlan], weight_type: WeightType
) -> list[TensorJob]:
    """Tell the writer names, shapes and types, and return what it takes to write the data later in the same order."""
    types = types_of(plans, weight_type, Mixture.of(export.config.text_config))
    jobs = [TensorJob(plan, export.tensors[plan.source], kind) for plan, kind in zip(plans, types, strict=True)]
    for job in jobs:
        # With a type given, the numpy type only says that the shape counts values, not bytes.
        size_bytes = encoded_bytes(job.plan, job.encoding)
        shape, dtype = job.plan.target_shape, np.dtype(np.float32)
        writer.add_tensor_info(job.plan.target, shape, dtype, size_bytes, raw_dtype=job.encoding)
    return jobs


def _write(
    writer: GGUFWriter,
    path: Path,
    jobs: Sequence[TensorJob],
    around: tuple[npt.NDArray[np.float32] | None, Advance | None],
) -> None:
    """Write header, metadata and tensors.

    ``around`` is a tensor that no checkpoint has, announced before the others, and who is told how far it is.
    """
    first, advance = around
    with replacing(path) as temporary:
        try:
            writer.write_header_to_file(temporary)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            if first is not None:
                writer.write_tensor_data(first)
            for job in jobs:
                logger.debug("%s -> %s %s", job.plan.source, job.plan.target, job.encoding.name)
                writer.write_tensor_data(encode(job.stored, job.plan, job.encoding))
                if advance is not None:
                    advance(job.stored.size)
        finally:
            writer.close()
    logger.info("%s: %d tensors, %.1f MB", path, len(jobs) + (first is not None), path.stat().st_size / 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m engine_build.gguf_export", description=__doc__)
    types = [weight_type.value for weight_type in WeightType]
    parser.add_argument("checkpoint", type=Path, help="directory in Hugging Face layout")
    parser.add_argument("out", type=Path, help="directory for model.gguf, mmproj.gguf and tokenizer.json")
    parser.add_argument("--type", choices=types, default="f16", help="type of the text weights (default: f16)")
    parser.add_argument("--vision-type", choices=types, help="type of the vision weights (default: f16; f32 with f32)")
    parser.add_argument("--name", help="name that tools show (default: the directory's name)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("gguf").setLevel(logging.WARNING)
    vision_type = WeightType(arguments.vision_type) if arguments.vision_type else None
    try:
        export_checkpoint(arguments.checkpoint, arguments.out, WeightType(arguments.type), vision_type, arguments.name)
    except EngineBuildError as exc:
        logger.error("%s", exc.message)  # noqa: TRY400 -- the message is the whole story; a trace would hide it
        return 1
    except OSError as exc:
        logger.error("%s: %s", arguments.out, exc.strerror)  # noqa: TRY400 -- a full disk needs no trace
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
