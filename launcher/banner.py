"""What is said once at the start: the name, the version, the model, and under which licences all of it is used.

NVIDIA's containers say theirs at the same place. ``NIM_DISABLE_BANNER=1`` leaves it out.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Final

RULE: Final = "=" * 76
PRODUCT: Final = "gemma4-nim"
_GEMMA_TERMS: Final = (
    "Gemma 4 is provided by Google under the Apache License, Version 2.0\n"
    "(https://ai.google.dev/gemma/docs/gemma_4_license), without warranty of any kind."
)
_NVFP4_TERMS: Final = (
    "Weights in NVFP4 were quantised by NVIDIA and are also under the NVIDIA Open Model License\n"
    "(https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license)."
)
_DEMO_TERMS: Final = "The demo models are part of gemma4-nim and under its licence; they know very little."


@dataclass(frozen=True, slots=True)
class Banner:
    """The notices of one start.

    Attributes:
        model: the name under which requests address the model.
        is_demo: it is one of the demo models.
        precision: of the weights, as in a profile's tags; None when that is not known.
    """

    model: str
    is_demo: bool = False
    precision: str | None = None

    def notices(self) -> tuple[str, ...]:
        """Return the licence notices, one for each thing that has one."""
        own = "gemma4-nim is open source under the Apache License, Version 2.0 (file LICENSE)."
        if self.is_demo:
            return (own, _DEMO_TERMS)
        return (own, _GEMMA_TERMS, _NVFP4_TERMS) if self.precision == "nvfp4" else (own, _GEMMA_TERMS)

    def text(self) -> str:
        """Return everything for people."""
        title = f"== {PRODUCT} {version()}: an open, NIM-style server for Gemma 4 =="
        notices = "\n\n".join(self.notices())
        return f"{RULE}\n{title}\n{RULE}\n\nModel: {self.model}\n\n{notices}\n"


def version() -> str:
    """Return the version of this installation; ``unknown`` when it runs from a folder that was never installed."""
    try:
        return importlib.metadata.version(PRODUCT)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
