"""Which GGUF type each tensor takes: the type that was asked for, or for a mixture llama.cpp's own choice per tensor.

``Q4_K_M`` is a mixture. The rules are those that llama.cpp's quantiser follows for an architecture without rules of its
own and a tied output head, without an importance matrix (``llama_tensor_get_type_impl`` and ``tensor_type_fallback`` in
``src/llama-quant.cpp``). How values are converted is left to ``gguf_encoding``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from engine_build.gguf_tensors import Storage, TensorPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine_build.model_config import TextConfig

Encoding = GGMLQuantizationType
FEW_EXPERTS: Final = 8
"""With exactly so many experts llama.cpp spends more bits on the attention, which is small beside them."""
_FEW_EXPERTS_ATTENTION: Final = MappingProxyType(
    {"attn_v": Encoding.Q8_0, "attn_k": Encoding.Q8_0, "attn_output": Encoding.Q5_K}
)
EMBEDDING: Final = "token_embd.weight"
FALLBACKS: Final[Mapping[Encoding, Encoding]] = MappingProxyType(
    {Encoding.Q4_K: Encoding.Q5_0, Encoding.Q5_K: Encoding.Q5_1, Encoding.Q6_K: Encoding.Q8_0}
)
"""What a row takes that does not divide into blocks of 256."""
_LAYER: Final = re.compile(r"blk\.(\d+)\.")


class WeightType(StrEnum):
    """Types that the weights of a GGUF file can be written in."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"
    Q4_K_M = "q4_k_m"

    @property
    def file_type(self) -> LlamaFileType:
        """The value of ``general.file_type``."""
        return LlamaFileType.ALL_F32 if self is WeightType.F32 else LlamaFileType[f"MOSTLY_{self.name}"]

    @property
    def is_quantised(self) -> bool:
        """Tell whether weights lose more than rounding to 16 bits."""
        return self in (WeightType.Q8_0, WeightType.Q4_K_M)


@dataclass(frozen=True, slots=True)
class Mixture:
    """What the choice per tensor depends on beside the tensor.

    Attributes:
        layers: of the text model.
        experts: routed experts per layer, 0 for a dense model.
        value_layers: the layers that have a value projection, in order; full layers of Gemma 4 may have none.
    """

    layers: int
    experts: int
    value_layers: tuple[int, ...]

    @classmethod
    def of(cls, config: TextConfig) -> Mixture:
        """Return that of a model."""
        layers = range(config.num_hidden_layers)
        experts = (config.num_experts or 0) if config.enable_moe_block else 0
        return cls(len(layers), experts, tuple(layer for layer in layers if config.has_value_projection(layer)))


def types_of(plans: Sequence[TensorPlan], weight_type: WeightType, mixture: Mixture | None = None) -> list[Encoding]:
    """Return the type of each tensor; ``mixture`` is needed for ``Q4_K_M`` only."""
    return [_type_of(plan, weight_type, mixture) for plan in plans]


def _type_of(plan: TensorPlan, weight_type: WeightType, mixture: Mixture | None) -> Encoding:
    if plan.storage is Storage.FLOAT32:
        return Encoding.F32
    if plan.storage is Storage.CONVOLUTION:
        return Encoding.F16 if weight_type is WeightType.F16 else Encoding.F32
    if weight_type is WeightType.Q4_K_M:
        if mixture is None:
            raise TypeError("a mixture depends on the model")
        return _fitting(_mixed(plan.target, plan.shape[-1], mixture), plan.shape[-1])
    return _fitting(GGMLQuantizationType[weight_type.name], plan.shape[-1])


def _fitting(wanted: Encoding, columns: int) -> Encoding:
    """Return the type itself, or what is taken for a row that does not divide into its blocks."""
    for choice in (wanted, FALLBACKS.get(wanted, Encoding.F16)):
        if columns % GGML_QUANT_SIZES[choice][0] == 0:
            return choice
    return Encoding.F16


def _mixed(name: str, columns: int, mixture: Mixture) -> Encoding:
    """Return llama.cpp's choice for ``Q4_K_M``, before rows that do not divide are seen to."""
    if name == EMBEDDING:
        # It is the output head as well, which is the most sensitive of all.
        return Encoding.Q6_K if columns % GGML_QUANT_SIZES[Encoding.Q4_K][0] == 0 else Encoding.Q8_0
    match = _LAYER.match(name)
    layer = int(match[1]) if match else 0
    if mixture.experts == FEW_EXPERTS:
        part = name.split(".")[-2]
        if part in _FEW_EXPERTS_ATTENTION:
            return _FEW_EXPERTS_ATTENTION[part]
    elif "attn_v.weight" in name:
        index, count = mixture.value_layers.index(layer), len(mixture.value_layers)
        return Encoding.Q6_K if _deserves_more(index, count) else Encoding.Q4_K
    if "ffn_down" in name and _deserves_more(layer, mixture.layers):
        return Encoding.Q6_K
    return Encoding.Q4_K


def _deserves_more(index: int, count: int) -> bool:
    """Tell whether a layer is one of the first or last eighth, or each third between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2  # noqa: PLR2004 - llama.cpp's
