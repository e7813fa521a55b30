"""Settings of LoRA adapters: where they are, how often the folder is looked at, and how many are held.

What an adapter has to be is the engine's matter; docs/lora.md tells it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from config.settings_base import SettingsModel, variable

SLOT_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM sets memory aside; the one that is asked for is rounded up to one of them."""
_NONE = frozenset({"", "0", "false", "no", "off", "none", "disabled"})


def _folder(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in _NONE else value


def _seconds(value: object) -> object:
    return 0 if isinstance(value, str) and value.strip().lower() in _NONE else value


class AdapterSettings(SettingsModel):
    """LoRA adapters beside the model, which vLLM serves."""

    source: Annotated[Path | None, BeforeValidator(_folder)] = variable("NIM_PEFT_SOURCE", None)
    """A folder with LoRA adapters in PEFT's layout, one subfolder each; requests choose one by the subfolder's name as
    ``model``. Needs vLLM. Unset or ``none``: no adapters."""
    refresh_s: Annotated[Annotated[float, Field(ge=0, le=86_400)], BeforeValidator(_seconds)] = variable(
        "NIM_PEFT_REFRESH_INTERVAL", 0.0
    )
    """Seconds between two looks for adapters that were added, changed or removed. 0 looks once, at the start."""
    max_rank: int = variable("NIM_MAX_LORA_RANK", 32, ge=1, le=512)
    """Largest rank of an adapter; one of a higher rank is left out."""
    max_gpu: int = variable("NIM_MAX_GPU_LORAS", 8, ge=1, le=256)
    """Adapters that one step of the engine may use at the same time. Memory of the GPU is set aside for so many."""
    max_cpu: int = variable("NIM_MAX_CPU_LORAS", 16, ge=1, le=4096)
    """Adapters that are kept ready in main memory, at least as many as on the GPU; others are read again when they
    are asked for."""

    @property
    def slot_rank(self) -> int:
        """Return the rank for which memory is set aside."""
        return next(rank for rank in SLOT_RANKS if rank >= self.max_rank)
