"""Settings of the choice of a profile, and of the memory that it may take.

What the names, tags and precisions mean is the manifest's matter; here stands only what a user may write.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from config.settings_base import SettingsModel, read_automatic, read_default, read_lower, variable

Precision = Literal["bf16", "fp8", "nvfp4", "q8_0", "q4_k_m"]
Objective = Literal["latency", "throughput"]
_COMBINED = re.compile(r"([0-9a-fA-F]{8,64})\s*\((.*)\)\s*\Z")


def _profile(value: str) -> str:
    combined = _COMBINED.match(value)
    if combined is not None:
        # NIM prints "id (description)" and then refuses it when it is pasted back.
        return combined[1].lower()
    if any(letter.isspace() or letter == "," for letter in value):
        raise ValueError("give one profile: its id, the first letters of it, or its name")
    return value


def _tags(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(sign and name.strip() and text.strip() for name, sign, text in pairs):
        raise ValueError("write tags as name=value, separated by commas, for instance precision=fp8,tp=2")
    names = [name.strip() for name, _, _ in pairs]
    if len(names) != len(set(names)):
        raise ValueError("a tag stands twice")
    return tuple((name.strip(), text.strip()) for name, _, text in pairs)


class ProfileSettings(SettingsModel):
    """Which profile is served; what is left open, the launcher chooses for the hardware that it finds."""

    name: Annotated[Annotated[str, AfterValidator(_profile)] | None, BeforeValidator(read_default)] = variable(
        "NIM_MODEL_PROFILE", None
    )
    """One profile: its id, any unique beginning of it, or its name. Unset, ``default`` or ``auto``: the best that
    fits."""
    tags: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_tags)] = variable("NIM_TAGS_SELECTOR", ())
    """Only profiles with these tags: ``name=value``, separated by commas."""
    strict_fit: bool = variable("NIM_STRICT_FIT", default=False)
    """Refuse to start when the model's whole context does not fit, instead of serving a shorter one."""
    manifest_path: Path | None = variable("NIM_MANIFEST_PATH", None)
    """A manifest with other profiles than those of this image."""
    variant: Annotated[Literal["26b-a4b", "31b"] | None, BeforeValidator(read_lower)] = variable(
        "NIM_MODEL_VARIANT", None
    )
    """Only profiles of this Gemma 4: ``26b-a4b`` or ``31b``."""
    precision: Annotated[Precision | None, BeforeValidator(read_lower)] = variable("NIM_MODEL_PRECISION", None)
    """Only profiles whose weights have this precision."""
    objective: Annotated[Objective | None, BeforeValidator(read_lower)] = variable("NIM_PERF_PROFILE", None)
    """Only profiles that are made for this."""
    tensor_parallel: Annotated[Annotated[int, Field(ge=1, le=8)] | None, BeforeValidator(read_automatic)] = variable(
        "NIM_TENSOR_PARALLEL_SIZE", None
    )
    """Only profiles that spread one model over so many GPUs; for a checkpoint of your own, over how many it is
    spread."""


class MemorySettings(SettingsModel):
    """How much memory the engine may take, and how much stays for others."""

    gpu_utilization: Annotated[float, Field(gt=0, le=1)] | None = variable("NIM_GPU_MEMORY_UTILIZATION", None)
    """Share of a GPU's memory that may be used. Unset: all that is free, less the headroom."""
    gpu_headroom_gib: float = variable("NIM_GPU_MEMORY_HEADROOM_GIB", 2.0, ge=0, le=512)
    """Memory of each GPU that stays free, in GiB."""
    host_reserve_gib: float = variable("NIM_UNIFIED_MEMORY_HOST_RESERVE_GIB", 16.0, ge=0, le=512)
    """Memory that stays for the system where GPU and CPU share it (DGX Spark), in GiB."""
    guard_gib: Annotated[float, Field(ge=0, le=512)] | None = variable("NIM_MEMORY_GUARD_GIB", None)
    """The engine is stopped when the system has less memory left than this, in GiB; 0 turns that off. Unset: a
    thirty-second of the memory where GPU and CPU share it, off elsewhere."""
