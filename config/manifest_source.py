"""Expands the compact source ``config/profiles/gemma4.yaml`` into the full manifest, always in the same order.

Hundreds of profiles differ in a few words each; written out by hand they would drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.errors import ConfigError
from config.manifest import AT_DOWNLOAD, WHOLE_REPOSITORY, FileEntry, Manifest, Profile, Workspace, content_id
from config.manifest import read_document as _read
from config.variants import VARIANTS, VariantKey

SOURCE: Final = Path(__file__).with_name("profiles") / "gemma4.yaml"
DRAFT_FOLDER: Final = "draft"
"""Folder of the workspace that holds the draft model."""

Precision = Literal["bf16", "fp8", "nvfp4", "q8_0", "q4_k_m"]
Objective = Literal["latency", "throughput"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Checkpoint(_Model):
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str
    approximate_size: int


class _GgufFile(_Model):
    file: str
    approximate_size: int


class _GgufRepository(_Model):
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str
    vision: _GgufFile
    q8_0: _GgufFile
    q4_k_m: _GgufFile


class _Checkpoints(_Model):
    bf16: _Checkpoint
    fp8: _Checkpoint
    nvfp4: _Checkpoint
    draft: _Checkpoint
    gguf: _GgufRepository


class _Lora(_Model):
    precisions: tuple[Precision, ...]
    max_rank: int


class _Mtp(_Model):
    precisions: tuple[Precision, ...]
    draft_tokens: int


class _Engine(_Model):
    precisions: tuple[Precision, ...]
    tensor_parallel: tuple[int, ...]
    objectives: tuple[Objective, ...]
    lora: _Lora | None = None
    mtp: _Mtp | None = None


class _Rule(_Model):
    """Matches the profiles that agree with everything that is stated."""

    why: str
    engine: str | None = None
    variant: VariantKey | None = None
    precision: Precision | None = None
    tensor_parallel: tuple[int, ...] = ()
    lora: bool | None = None

    def matches(self, tags: dict[str, str]) -> bool:
        """Tell whether the rule is about a profile with these tags."""
        return (
            self.engine in (None, tags["llm_engine"])
            and self.variant in (None, tags["model_variant"])
            and self.precision in (None, tags["precision"])
            and (not self.tensor_parallel or int(tags["tp"]) in self.tensor_parallel)
            and self.lora in (None, tags["feat_lora"] == "true")
        )


class Source(_Model):
    """The compact source."""

    checkpoints: dict[VariantKey, _Checkpoints]
    checkpoint_files: tuple[str, ...]
    engines: dict[str, _Engine]
    impossible: tuple[_Rule, ...]
    unproven: tuple[_Rule, ...]


def read_source(path: Path = SOURCE) -> Source:
    """Read the compact source.

    Raises:
        ConfigError: it is damaged; each line names the field.
    """
    try:
        return Source.model_validate(_read(path))
    except ValidationError as error:
        raise ConfigError(
            [f"{path.name}: {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        ) from error


def build_manifest(source: Source | None = None) -> Manifest:
    """Expand the source into one profile for each model, engine, precision, number of GPUs, objective and feature."""
    found = source or read_source()
    return Manifest(schema_version="2.0.0", profiles=tuple(_profiles(found)))


def _profiles(source: Source) -> Iterator[Profile]:
    for tags in _all_tags(source):
        if any(rule.matches(tags) for rule in source.impossible):
            continue
        workspace = _workspace(source, tags)
        why = next((rule.why for rule in source.unproven if rule.matches(tags)), "")
        yield Profile(id=content_id(tags, workspace), tags=tags, workspace=workspace, unproven=why)


def _all_tags(source: Source) -> Iterator[dict[str, str]]:
    for variant, (name, engine) in product(VARIANTS, source.engines.items()):
        for precision, tensor_parallel, objective in product(
            engine.precisions, engine.tensor_parallel, engine.objectives
        ):
            tags = {
                "llm_engine": name,
                "model_variant": variant.key,
                "precision": precision,
                "profile": objective,
                "tp": str(tensor_parallel),
                "pp": "1",
                "feat_lora": "false",
                "feat_mtp": "false",
            }
            yield tags
            if engine.lora is not None and precision in engine.lora.precisions:
                yield tags | {"feat_lora": "true", "feat_lora_max_rank": str(engine.lora.max_rank)}
            if engine.mtp is not None and precision in engine.mtp.precisions and objective == "latency":
                yield tags | {"feat_mtp": "true", "mtp_draft_tokens": str(engine.mtp.draft_tokens)}


def _workspace(source: Source, tags: dict[str, str]) -> Workspace:
    variant: VariantKey = "31b" if tags["model_variant"] == "31b" else "26b-a4b"
    checkpoints, precision = source.checkpoints[variant], tags["precision"]
    if precision in ("q8_0", "q4_k_m"):
        gguf = checkpoints.gguf
        files = (gguf.q8_0 if precision == "q8_0" else gguf.q4_k_m, gguf.vision)
        return Workspace(files={file.file: _gguf_entry(gguf, file) for file in files})
    chosen = {"bf16": checkpoints.bf16, "fp8": checkpoints.fp8, "nvfp4": checkpoints.nvfp4}[precision]
    entries = {WHOLE_REPOSITORY: _repository_entry(chosen, source.checkpoint_files)}
    if tags["feat_mtp"] == "true":
        entries[f"{DRAFT_FOLDER}/{WHOLE_REPOSITORY}"] = _repository_entry(checkpoints.draft, source.checkpoint_files)
    return Workspace(files=entries)


def _repository_entry(checkpoint: _Checkpoint, include: tuple[str, ...]) -> FileEntry:
    return FileEntry(
        uri=f"hf://{checkpoint.repository}:{checkpoint.revision}",
        approximate_size=checkpoint.approximate_size,
        include=include,
        resolve=AT_DOWNLOAD,
    )


def _gguf_entry(gguf: _GgufRepository, file: _GgufFile) -> FileEntry:
    return FileEntry(
        uri=f"hf://{gguf.repository}:{gguf.revision}?file={file.file}",
        approximate_size=file.approximate_size,
        resolve=AT_DOWNLOAD,
    )
