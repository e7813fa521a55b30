"""What a bundle was made for, and how that differs from what there is now.

Two bundles with the same fingerprint are interchangeable, so a bundle's name is made from it. Pure: who finds the facts
out is ``launcher`` for the machine, and the plan for the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Engine = Literal["llama_cpp", "vllm", "tensorrt_llm"]
ID_DIGITS: Final = 16
_ABSENT: Final = "not set"


class Hardware(BaseModel):
    """The devices that a bundle computes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    """A GPU's name as its driver says, or the processor's architecture such as ``x86_64``."""
    capability: str
    """Compute capability of a GPU such as ``10.0``, or the processor's features that the engine's code rests on."""
    count: int = Field(ge=0)
    """GPUs that share every layer; 0 for a processor."""
    driver: str | None = None
    """Version of NVIDIA's driver."""


class Fingerprint(BaseModel):
    """Everything that must be the same for a bundle to be usable. None stands for what is settled on the target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Engine
    engine_version: str | None
    hardware: Hardware | None
    model: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the checkpoint that it was made from."""
    precision: str
    arguments: dict[str, Any]
    """The frozen engine arguments."""

    @property
    def bundle_id(self) -> str:
        """Return the name of the bundle: what people look for first, and a digest of everything."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return f"{self.engine}-{self.precision}-{hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]}"

    def anywhere(self) -> Fingerprint:
        """Return the same without the machine: that of a bundle that was prebuilt."""
        return self.model_copy(update={"hardware": None})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was when the bundle was made."""

    field: str
    built: str
    here: str

    def __str__(self) -> str:
        return f"{self.field}: built for {self.built}, here {self.here}"


def differences(built: Fingerprint, here: Fingerprint) -> tuple[Difference, ...]:
    """Return every difference, in the order of the fields. What a prebuilt bundle leaves open never differs."""
    return tuple(_differences(built, here))


def _differences(built: Fingerprint, here: Fingerprint) -> Iterator[Difference]:
    for field in ("engine", "engine_version", "model", "precision"):
        then, now = getattr(built, field), getattr(here, field)
        if then is not None and then != now:
            yield Difference(field, str(then), "not installed" if now is None else str(now))
    if built.hardware is not None:
        now_there = here.hardware
        for field in Hardware.model_fields:
            then, now = getattr(built.hardware, field), None if now_there is None else getattr(now_there, field)
            if then != now:
                yield Difference(field, _text(then), _text(now))
    yield from _argument_differences(built.arguments, here.arguments, "arguments")


def _argument_differences(built: Mapping[str, Any], here: Mapping[str, Any], place: str) -> Iterator[Difference]:
    for name in sorted(built.keys() | here.keys()):
        then, now = built.get(name), here.get(name)
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            yield from _argument_differences(then, now, f"{place}.{name}")
        elif then != now or (name in built) != (name in here):
            yield Difference(f"{place}.{name}", _text(then), _text(now))


def _text(value: object) -> str:
    return _ABSENT if value is None else str(value)
