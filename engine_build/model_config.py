"""The fields of a Gemma 4 ``config.json`` that decide tensor shapes and GGUF metadata, validated.

It knows the 26B-A4B and 31B family: text and vision, no audio tower, no per-layer embeddings, no shared KV layers. A
config of another family is refused by name. Reading tensors is left to ``safetensors_checkpoint``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine_build.errors import CheckpointError
from engine_build.json_file import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

Count = Annotated[int, Field(gt=0)]
LayerType = Literal["sliding_attention", "full_attention"]


class _Section(BaseModel):
    """A frozen part of ``config.json``; keys that do not matter here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class FullRope(_Section):
    """Rotary embedding of the full layers: the first part of the frequencies turns, the rest stands still."""

    rope_type: Literal["proportional"]
    rope_theta: float = Field(gt=0)
    partial_rotary_factor: float = Field(gt=0, le=1)


class SlidingRope(_Section):
    """Rotary embedding of the sliding layers: all dimensions turn."""

    rope_type: Literal["default"]
    rope_theta: float = Field(gt=0)


class RopeParameters(_Section):
    """Rotary embeddings by layer type."""

    full_attention: FullRope
    sliding_attention: SlidingRope


class TextConfig(_Section):
    """``text_config``. Head sizes and KV heads differ between sliding and full layers."""

    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    global_head_dim: Count
    num_global_key_value_heads: Count | None = None
    attention_k_eq_v: bool = False
    intermediate_size: Count
    vocab_size: Count
    max_position_embeddings: Count
    sliding_window: Count
    layer_types: tuple[LayerType, ...]
    rope_parameters: RopeParameters
    rms_norm_eps: float = Field(gt=0)
    final_logit_softcapping: float | None = None
    tie_word_embeddings: Literal[True] = True
    enable_moe_block: bool = False
    num_experts: Count | None = None
    top_k_experts: Count | None = None
    moe_intermediate_size: Count | None = None
    num_kv_shared_layers: Literal[0] = 0
    hidden_size_per_layer_input: Literal[0] | None = 0
    use_double_wide_mlp: Literal[False] = False
    attention_bias: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _accept_per_layer_config(cls, data: object) -> object:
        """Read the head sizes of full layers from ``per_layer_config`` where the published keys are missing.

        transformers 5.23 writes this form when it saves a checkpoint (``PreTrainedConfig.save_pretrained``).
        """
        if not isinstance(data, dict) or not isinstance(data.get("per_layer_config"), dict):
            return data
        types = data.get("layer_types")
        if not isinstance(types, list):
            return data
        for index, overrides in data["per_layer_config"].items():
            if not (str(index).isdecimal() and int(index) < len(types) and isinstance(overrides, dict)):
                continue
            if types[int(index)] == "full_attention":
                full = {
                    "global_head_dim": overrides.get("head_dim"),
                    "num_global_key_value_heads": overrides.get("num_key_value_heads"),
                }
                return {**{key: value for key, value in full.items() if value is not None}, **data}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.layer_types) != self.num_hidden_layers:
            msg = f"layer_types has {len(self.layer_types)} entries for num_hidden_layers {self.num_hidden_layers}"
            raise ValueError(msg)
        experts = (self.num_experts, self.top_k_experts, self.moe_intermediate_size)
        if self.enable_moe_block and None in experts:
            msg = "enable_moe_block needs num_experts, top_k_experts and moe_intermediate_size"
            raise ValueError(msg)
        return self

    def is_sliding(self, layer: int) -> bool:
        """Tell whether ``layer`` attends to the window only."""
        return self.layer_types[layer] == "sliding_attention"

    def kv_heads(self, layer: int) -> int:
        """Return the number of key and value heads of ``layer``.

        The override for full layers counts only with ``attention_k_eq_v``, as in transformers' ``Gemma4TextConfig``.
        """
        if self.is_sliding(layer) or not self.attention_k_eq_v:
            return self.num_key_value_heads
        return self.num_global_key_value_heads or self.num_key_value_heads

    def head_size(self, layer: int) -> int:
        """Return the size of one attention head of ``layer``."""
        return self.head_dim if self.is_sliding(layer) else self.global_head_dim

    def has_value_projection(self, layer: int) -> bool:
        """Tell whether ``layer`` has a ``v_proj``; full layers with ``attention_k_eq_v`` reuse the keys."""
        return self.is_sliding(layer) or not self.attention_k_eq_v


class VisionConfig(_Section):
    """``vision_config`` of the ``gemma4_vision`` tower."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    patch_size: Count
    position_embedding_size: Count
    standardize: bool = False
    use_clipped_linears: Literal[False] = False
    rms_norm_eps: float = Field(default=1e-6, gt=0)


class ModelConfig(_Section):
    """``config.json`` of a Gemma 4 checkpoint; ``vision_config`` is absent in a text-only one."""

    model_type: Literal["gemma4"]
    text_config: TextConfig
    vision_config: VisionConfig | None = None
    audio_config: None = None


def load_model_config(directory: Path) -> ModelConfig:
    """Read and check ``config.json`` of a checkpoint directory.

    Raises:
        CheckpointError: the file is missing or damaged, or a field is missing, out of range or of another family.
    """
    path = directory / "config.json"
    data = read_json_object(path, CheckpointError)
    try:
        return ModelConfig.model_validate(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "config"
        msg = f"{path}: {field}: {first['msg']}"
        raise CheckpointError(msg) from exc
