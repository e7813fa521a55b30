"""The models that this project serves by name: the two published Gemma 4 variants and the two demo checkpoints.

Here stand the published facts of their architecture; what follows from them in bytes is ``launcher.memory``'s matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

VariantKey = Literal["26b-a4b", "31b"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One published model.

    Attributes:
        key: short name in profiles, and the value of ``NIM_MODEL_VARIANT``.
        names: names that clients may use; the first is NVIDIA's, the second Google's own.
        layers: number of decoder layers; with ``experts`` it tells the variants apart.
        experts: routed experts per layer, 0 for a dense model.
        active_experts: experts that one token passes through.
        expert_width: inner width of one expert.
        hidden: width of the residual stream.
        mlp_width: inner width of the dense MLP, which both variants have.
        query_heads: heads of every layer.
        sliding_kv_heads: key and value heads of a layer that looks back ``WINDOW`` tokens.
        global_kv_heads: key and value heads of a layer that sees everything.
        text_parameters: of the text model, embedding included.
        vision_parameters: of the vision tower and its projector.
    """

    key: VariantKey
    names: tuple[str, ...]
    layers: int
    experts: int
    active_experts: int
    expert_width: int
    hidden: int
    mlp_width: int
    query_heads: int
    sliding_kv_heads: int
    global_kv_heads: int
    text_parameters: int
    vision_parameters: int

    @property
    def sliding_layers(self) -> int:
        """Return how many layers keep a window: five of every six."""
        return self.layers - self.global_layers

    @property
    def global_layers(self) -> int:
        """Return how many layers keep every token: each sixth, the last one among them."""
        return self.layers // GLOBAL_EVERY

    @property
    def pattern(self) -> tuple[bool, ...]:
        """Return for each layer whether it slides."""
        return tuple(index % GLOBAL_EVERY != GLOBAL_EVERY - 1 for index in range(self.layers))


WINDOW: Final = 1024
"""Tokens that a sliding layer looks back."""
GLOBAL_EVERY: Final = 6
SLIDING_HEAD_DIM: Final = 256
"""Width of a head of a sliding layer."""
GLOBAL_HEAD_DIM: Final = 512
"""Width of a head of a global layer."""
VOCABULARY: Final = 262_144
TRAINED_CONTEXT: Final = 262_144
LARGEST_IMAGE_TOKENS: Final = 1120
"""The largest token budget of one picture."""
VISION_HIDDEN: Final = 1152
VISION_MLP_WIDTH: Final = 4304
PATCHES_PER_IMAGE_TOKEN: Final = 9
"""The vision tower pools 3 x 3 patches into one token."""

VARIANTS: Final = (
    Variant(
        key="26b-a4b",
        names=("google/gemma-4-26b-a4b-it", "google/gemma-4-26B-A4B-it"),
        layers=30,
        experts=128,
        active_experts=8,
        expert_width=704,
        hidden=2816,
        mlp_width=2112,
        query_heads=16,
        sliding_kv_heads=8,
        global_kv_heads=2,
        text_parameters=25_233_000_000,
        vision_parameters=573_000_000,
    ),
    Variant(
        key="31b",
        names=("google/gemma-4-31b-it", "google/gemma-4-31B-it"),
        layers=60,
        experts=0,
        active_experts=0,
        expert_width=0,
        hidden=5376,
        mlp_width=21_504,
        query_heads=32,
        sliding_kv_heads=16,
        global_kv_heads=4,
        text_parameters=30_697_000_000,
        vision_parameters=576_000_000,
    ),
)
DEFAULT_VARIANT: Final[VariantKey] = "26b-a4b"
"""Served unless ``NIM_MODEL_VARIANT`` or a profile says otherwise: the faster one, and it fits more machines."""

DEFAULT_PROFILE: Final = "demo-moe"
PROFILES: Final = ("demo-moe", "demo-dense")
"""Demo checkpoints, shipped in the package ``demo`` under ``checkpoints/``."""


def find_variant(key: str) -> Variant:
    """Return the published model of this key.

    Raises:
        KeyError: there is none.
    """
    for variant in VARIANTS:
        if variant.key == key:
            return variant
    raise KeyError(key)


def published_names(layers: int, experts: int) -> tuple[str, ...]:
    """Return the names of the published model with this shape; empty when there is none."""
    for variant in VARIANTS:
        if (variant.layers, variant.experts) == (layers, experts):
            return variant.names
    return ()
