"""The profile manifest: which files belong to which engine, precision and number of GPUs, in the shape of NIM's v2.

This module owns the schema and reads manifests. The manifest of this project is expanded from a compact source by
``config.manifest_source``; ``config.manifest_export`` writes it out. Which profile runs where is the launcher's plan.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from config.errors import ConfigError
from config.variants import VariantKey

AT_DOWNLOAD: Final = "at download"
WHOLE_REPOSITORY: Final = "*"
"""Last part of a path that stands for the files of a repository, whose list is only known at download."""
_URI: Final = re.compile(r"(?:hf|ngc|s3|https|http|file|modelscope)://\S+\Z|/\S+\Z")
_SHA256: Final = re.compile(r"sha256:([0-9a-f]{64})\Z")
_FLAG = {"true": True, "false": False}


def _uri(value: str) -> str:
    if not _URI.match(value):
        raise ValueError("must be hf://, ngc://, s3://, https://, file:// or an absolute path")
    return value


def _relative(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        raise ValueError("must be a path inside the workspace, without '..'")
    return value


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FileEntry(_Model):
    """Where one file of a workspace, or all files of a repository, come from."""

    uri: Annotated[str, AfterValidator(_uri)]
    """``hf://org/model:revision?file=name``, ``ngc://``, ``s3://``, ``https://``; without a file, the repository."""
    checksum: str | None = None
    """``sha256:`` and 64 hexadecimal digits. Another form is kept but proves nothing."""
    size: Annotated[int, Field(ge=0)] | None = None
    """Bytes, exact."""
    approximate_size: Annotated[int, Field(ge=0)] | None = None
    """Bytes, for planning only."""
    include: tuple[str, ...] = ()
    """Of a whole repository, the patterns of the files that are needed."""
    resolve: Literal["at download"] | None = None
    """What is not stated here is taken from the repository's own metadata when it is downloaded."""


class Workspace(_Model):
    """The files that a profile needs, by their path in the folder that the engine reads."""

    files: dict[Annotated[str, AfterValidator(_relative)], FileEntry]


class WorkspaceFile(_Model):
    """One entry of a workspace together with its path."""

    path: str
    uri: str
    size: int | None = None
    """Bytes; None when only the source knows."""
    sha256: str | None = None
    """Hexadecimal; None when only the source knows."""
    approximate_size: int | None = None
    include: tuple[str, ...] = ()
    resolve: str | None = None

    @property
    def planned_size(self) -> int:
        """Return the best known size in bytes, 0 when there is none."""
        return self.size if self.size is not None else self.approximate_size or 0


class Profile(_Model):
    """One way to run one model."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """64 hexadecimal digits: the SHA-256 of the content, see ``content_id``."""
    tags: dict[str, str]
    """What the profile is, in NIM's words; values are always text."""
    workspace: Workspace
    unproven: str = ""
    """Why this profile is only taken when it is named; empty for all others."""

    @model_validator(mode="after")
    def _check_tags(self) -> Profile:
        for tag in ("llm_engine", "precision", "tp", "model_variant"):
            if tag not in self.tags:
                raise ValueError(f"tags.{tag}: missing")
        if self.tags["model_variant"] not in ("26b-a4b", "31b"):
            raise ValueError(f"tags.model_variant: must be 26b-a4b or 31b, not {self.tags['model_variant']!r}")
        for tag in ("tp", "pp"):
            if not re.fullmatch(r"[1-9]\d{0,3}", self.tags.get(tag, "1")):
                raise ValueError(f"tags.{tag}: must be a whole number from 1 up, not {self.tags[tag]!r}")
        for tag in ("feat_lora", "feat_mtp"):
            if self.tags.get(tag, "false") not in _FLAG:
                raise ValueError(f"tags.{tag}: must be 'true' or 'false', not {self.tags[tag]!r}")
        return self

    def __hash__(self) -> int:
        return hash(self.id)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values; what was derived from the old ones is derived anew."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("name", "short_name", "files", "download_size"):
            copy.__dict__.pop(name, None)
        return copy

    @property
    def variant(self) -> VariantKey:
        """Return which Gemma 4 this serves."""
        return "31b" if self.tags["model_variant"] == "31b" else "26b-a4b"

    @property
    def engine(self) -> str:
        """Return the engine: ``tensorrt_llm``, ``vllm`` or ``llama_cpp``; other manifests may name others."""
        return self.tags["llm_engine"]

    @property
    def precision(self) -> str:
        """Return how the weights are stored: ``bf16``, ``fp8``, ``nvfp4``, ``q8_0``, ``q4_k_m``."""
        return self.tags["precision"]

    @property
    def tensor_parallel(self) -> int:
        """Return over how many GPUs each layer is spread."""
        return int(self.tags["tp"])

    @property
    def pipeline_parallel(self) -> int:
        """Return over how many groups of GPUs the layers are spread; Gemma 4 runs with 1 only."""
        return int(self.tags.get("pp", "1"))

    @property
    def objective(self) -> str:
        """Return what this is made for: ``latency`` or ``throughput``."""
        return self.tags.get("profile", "throughput")

    @property
    def lora(self) -> bool:
        """Tell whether LoRA adapters can be served."""
        return _FLAG[self.tags.get("feat_lora", "false")]

    @property
    def mtp(self) -> bool:
        """Tell whether a draft model proposes several tokens at once."""
        return _FLAG[self.tags.get("feat_mtp", "false")]

    @cached_property
    def name(self) -> str:
        """Return the name that people use, such as ``vllm-26b-a4b-fp8-tp1-pp1-latency``."""
        flags = ("-lora" if self.lora else "") + ("-mtp" if self.mtp else "")
        size = f"tp{self.tensor_parallel}-pp{self.pipeline_parallel}"
        return f"{self.engine}-{self.variant}-{self.precision}-{size}-{self.objective}{flags}"

    @cached_property
    def short_name(self) -> str:
        """Return NIM's form of the name, which leaves the variant and the objective open."""
        flags = ("-lora" if self.lora else "") + ("-mtp" if self.mtp else "")
        return f"{self.engine}-{self.precision}-tp{self.tensor_parallel}-pp{self.pipeline_parallel}{flags}"

    @cached_property
    def files(self) -> tuple[WorkspaceFile, ...]:
        """Return the files to fetch, in the manifest's order."""
        return tuple(
            WorkspaceFile(path=path, sha256=_sha256(entry.checksum), **entry.model_dump(exclude={"checksum"}))
            for path, entry in self.workspace.files.items()
        )

    @cached_property
    def download_size(self) -> int:
        """Return the bytes to download, as far as known; sizes that are not exact are marked so in ``files``."""
        return sum(file.planned_size for file in self.files)


class Manifest(_Model):
    """All profiles of an image."""

    schema_version: Literal["2.0.0"]
    profile_selection_criteria: str = "default"
    profiles: tuple[Profile, ...]

    @model_validator(mode="after")
    def _check_unique(self) -> Manifest:
        seen: set[str] = set()
        for profile in self.profiles:
            if profile.id in seen:
                raise ValueError(f"two profiles have the id {profile.id}")
            seen.add(profile.id)
        return self


def content_id(tags: dict[str, str], workspace: Workspace) -> str:
    """Return the id of a profile: SHA-256 of its tags and of what identifies its files.

    Approximate sizes are left out: a better estimate does not make another profile.
    """
    files = {
        path: entry.model_dump(exclude={"approximate_size"}, exclude_defaults=True, mode="json")
        for path, entry in workspace.files.items()
    }
    canonical = json.dumps({"tags": tags, "files": files}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def load_manifest(path: Path | None = None) -> Manifest:
    """Return the manifest in this file, or without a path that of this project.

    Raises:
        ConfigError: the file cannot be read or breaks the schema; each problem names the profile and the field.
    """
    if path is not None:
        return parse_manifest(read_document(path), str(path))
    return _own()


@lru_cache(maxsize=1)
def _own() -> Manifest:
    # Only here, because the source builds on the schema above.
    from config.manifest_source import build_manifest  # noqa: PLC0415

    return build_manifest()


def read_document(path: Path) -> Any:
    """Return what a YAML or JSON file holds.

    Raises:
        ConfigError: it cannot be read or is not YAML.
    """
    try:
        with path.open("rb") as stream:
            # The safe loader of libyaml where the package has it: ten times as fast, and makes plain values only too.
            return yaml.load(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise ConfigError([f"the manifest {path} cannot be read: {error.strerror or error}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"the manifest {path} is not valid YAML: {' '.join(str(error).split())}"]) from error


def parse_manifest(document: Any, source: str) -> Manifest:
    """Check a document against the schema; ``source`` names it in errors.

    Raises:
        ConfigError: one line per fault.
    """
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        problems = [_problem(source, document, fault["loc"], fault["msg"]) for fault in error.errors()]
        raise ConfigError(problems) from error


def _problem(source: str, document: Any, location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    field = _field(location)
    if len(location) > 1 and location[0] == "profiles" and isinstance(location[1], int):
        entry = document["profiles"][location[1]]
        known = entry.get("id") if isinstance(entry, dict) else None
        field = _field(location[2:])
        where = f"profile {location[1] + 1}" + (f" ({_printable(str(known))[:12]})" if known else "")
        return f"the manifest {source}: {where}: {field + ': ' if field else ''}{text}"
    return f"the manifest {source}: {field + ': ' if field else ''}{text}"


def _field(location: tuple[int | str, ...]) -> str:
    return _printable(".".join(str(part) for part in location if part != "[key]"))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _sha256(checksum: str | None) -> str | None:
    match = _SHA256.match(checksum or "")
    return match[1] if match else None
