"""GPUs by name: what a plan needs to know of a machine that is not there, and a reader for ``2xL40S``.

The facts stand in ``config/gpus.yaml``. GPUs that are there are asked themselves.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from config.errors import ConfigError
from config.manifest import read_document

CATALOGUE: Final = Path(__file__).with_name("gpus.yaml")
MAX_COUNT: Final = 64
_GROUP: Final = re.compile(r"(?:(\d{1,4})\s*[x*]\s*)?(.+)\Z", re.IGNORECASE)


class GpuModel(BaseModel):
    """One kind of GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """As NVIDIA's driver says."""
    aliases: tuple[str, ...]
    memory_mib: Annotated[int, Field(gt=0)]
    capability: Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]
    nvlink: bool
    """GPUs of one machine reach each other by NVLink."""
    unified: bool = False
    """GPU and processor share one memory."""

    @property
    def memory_bytes(self) -> int:
        """Return the memory of one GPU."""
        return self.memory_mib * 2**20

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Return the compute capability as a pair."""
        major, minor = self.capability.split(".")
        return int(major), int(minor)


@lru_cache(maxsize=1)
def all_gpus() -> tuple[GpuModel, ...]:
    """Return the catalogue."""
    return TypeAdapter(tuple[GpuModel, ...]).validate_python(read_document(CATALOGUE))


def find_gpu(name: str) -> GpuModel:
    """Find a GPU by the driver's name or what people write; case, ``NVIDIA`` and spaces do not matter.

    Raises:
        ConfigError: it is not known; the nearest names are listed.
    """
    wanted = _plain(name)
    spellings = {_plain(text): gpu for gpu in all_gpus() for text in (gpu.name, *gpu.aliases)}
    if wanted in spellings:
        return spellings[wanted]
    near = difflib.get_close_matches(wanted, spellings, n=4, cutoff=0.5)
    names = dict.fromkeys(spellings[text].name for text in near) or [gpu.name for gpu in all_gpus()]
    raise ConfigError([f"no GPU is known as {name!r}; known are for instance: {', '.join(names)}"])


def read_gpus(text: str) -> tuple[tuple[int, GpuModel], ...]:
    """Read a list of GPUs such as ``2xL40S`` or ``1xH100, 2xL4`` into counts and kinds.

    Raises:
        ConfigError: a part cannot be read, or names an unknown GPU.
    """
    groups: list[tuple[int, GpuModel]] = []
    for part in text.split(","):
        match = _GROUP.match(part.strip())
        if match is None:
            raise ConfigError([f"{text!r} is no list of GPUs; write for instance 2xL40S or 1xH100,2xL4"])
        count = int(match[1] or 1)
        if not 1 <= count <= MAX_COUNT:
            raise ConfigError([f"{part.strip()!r}: the number of GPUs must be from 1 to {MAX_COUNT}"])
        groups.append((count, find_gpu(match[2])))
    return tuple(groups)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("nvidia", "").replace("geforce", ""))
