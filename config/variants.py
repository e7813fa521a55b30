"""The models that this project serves by name: the two published Gemma 4 variants and the two demo checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Variant:
    """One published model.

    Attributes:
        layers: number of decoder layers; with ``experts`` it tells the variants apart.
        experts: routed experts per layer, 0 for a dense model.
        names: names that clients may use; the first is NVIDIA's, the second Google's own.
    """

    layers: int
    experts: int
    names: tuple[str, ...]


VARIANTS: Final = (
    Variant(layers=30, experts=128, names=("google/gemma-4-26b-a4b-it", "google/gemma-4-26B-A4B-it")),
    Variant(layers=60, experts=0, names=("google/gemma-4-31b-it", "google/gemma-4-31B-it")),
)

DEFAULT_PROFILE: Final = "demo-moe"
PROFILES: Final = ("demo-moe", "demo-dense")
"""Demo checkpoints, shipped in the package ``demo`` under ``checkpoints/``."""


def published_names(layers: int, experts: int) -> tuple[str, ...]:
    """Return the names of the published model with this shape; empty when there is none."""
    for variant in VARIANTS:
        if (variant.layers, variant.experts) == (layers, experts):
            return variant.names
    return ()
