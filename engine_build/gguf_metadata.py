"""The key-value part of the two GGUF files of a Gemma 4: the text model and the vision projector.

Keys and meanings are those that llama.cpp reads for the architectures ``gemma4`` and ``clip``. The vocabulary is left
to ``gguf_vocabulary``, tensors to ``gguf_tensors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_VERSION, GGUFWriter, VisionProjectorType, size_label

from engine_build.errors import CheckpointError
from engine_build.gguf_tensors import RGB_CHANNELS
from engine_build.json_file import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from engine_build.gguf_types import WeightType
    from engine_build.model_config import ModelConfig, TextConfig, VisionConfig

# llama.cpp wants an image size; the gemma4v projector computes sizes per picture and never reads it.
UNUSED_IMAGE_SIZE = 224
# Dividing a frequency by this stops the rotation, far beyond any context in float32.
STANDING_STILL = 1e30


def add_general(writer: GGUFWriter, kind: str, name: str, weight_type: WeightType, directory: Path) -> None:
    """Add what both files share; call it when all tensors are known, because the size label counts them.

    Raises:
        CheckpointError: ``generation_config.json`` is damaged.
    """
    writer.add_type(kind)
    writer.add_name(name)
    writer.add_size_label(size_label(*writer.get_total_parameter_count()))
    writer.add_file_type(weight_type.file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    path = directory / "generation_config.json"
    if not path.is_file():
        return
    sampling = read_json_object(path, CheckpointError)
    try:
        if sampling.get("top_k") is not None:
            writer.add_sampling_top_k(int(sampling["top_k"]))
        if sampling.get("top_p") is not None:
            writer.add_sampling_top_p(float(sampling["top_p"]))
        if sampling.get("temperature") is not None:
            writer.add_sampling_temp(float(sampling["temperature"]))
    except (TypeError, ValueError) as exc:
        msg = f"{path}: top_k, top_p and temperature must be numbers"
        raise CheckpointError(msg) from exc


def add_text_metadata(writer: GGUFWriter, config: TextConfig) -> None:
    """Add the hyperparameters of the text model."""
    sliding = [config.is_sliding(layer) for layer in range(config.num_hidden_layers)]
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_embedding_length_per_layer_input(0)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv([config.kv_heads(layer) for layer in range(config.num_hidden_layers)])
    writer.add_shared_kv_layers(0)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern(sliding)
    # The plain keys are those of full layers, the ``_swa`` keys those of sliding layers.
    writer.add_key_length(config.global_head_dim)
    writer.add_value_length(config.global_head_dim)
    writer.add_key_length_swa(config.head_dim)
    writer.add_value_length_swa(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters.full_attention.rope_theta)
    writer.add_rope_freq_base_swa(config.rope_parameters.sliding_attention.rope_theta)
    # All dimensions count as rotated; ``full_rope_factors`` stops those that stand still.
    writer.add_rope_dimension_count(config.global_head_dim)
    writer.add_rope_dimension_count_swa(config.head_dim)
    if config.enable_moe_block:
        writer.add_expert_count(config.num_experts or 0)
        writer.add_expert_used_count(config.top_k_experts or 0)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size or 0)


def full_rope_factors(config: TextConfig) -> npt.NDArray[np.float32]:
    """Return ``rope_freqs.weight``: a divisor for each frequency of the full layers, ``[global_head_dim / 2]``.

    The proportional rotary embedding turns only the first part of the frequencies. Dimensions cannot be moved together
    instead, because keys are also read as values.
    """
    pairs = config.global_head_dim // 2
    turning = int(config.global_head_dim * config.rope_parameters.full_attention.partial_rotary_factor / 2)
    return np.array([1.0] * turning + [STANDING_STILL] * (pairs - turning), dtype=np.float32)


def add_vision_metadata(writer: GGUFWriter, config: ModelConfig, vision: VisionConfig, directory: Path) -> None:
    """Add the hyperparameters of the vision tower.

    Raises:
        CheckpointError: the preprocessor's file is damaged.
    """
    mean, std = _image_normalisation(directory)
    writer.add_clip_has_vision_encoder(value=True)
    writer.add_clip_vision_projector_type(VisionProjectorType.GEMMA4V)
    writer.add_vision_projection_dim(config.text_config.hidden_size)
    writer.add_vision_image_size(UNUSED_IMAGE_SIZE)
    writer.add_vision_patch_size(vision.patch_size)
    writer.add_vision_embedding_length(vision.hidden_size)
    writer.add_vision_feed_forward_length(vision.intermediate_size)
    writer.add_vision_block_count(vision.num_hidden_layers)
    writer.add_vision_head_count(vision.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(vision.rms_norm_eps)
    writer.add_vision_image_mean(mean)
    writer.add_vision_image_std(std)


def _image_normalisation(directory: Path) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel; Gemma 4 maps pixels to -1..1 inside the model, so 0 and 1."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = directory / name
        if not path.is_file():
            continue
        data = read_json_object(path, CheckpointError)
        processor: Any = data.get("image_processor", data)
        if isinstance(processor, dict) and "image_mean" in processor and "image_std" in processor:
            return _channels(path, processor, "image_mean"), _channels(path, processor, "image_std")
    return [0.0] * RGB_CHANNELS, [1.0] * RGB_CHANNELS


def _channels(path: Path, processor: dict[str, Any], key: str) -> list[float]:
    values = processor[key]
    if (
        not isinstance(values, list)
        or len(values) != RGB_CHANNELS
        or not all(isinstance(v, int | float) for v in values)
    ):
        msg = f"{path}: {key}: must be three numbers"
        raise CheckpointError(msg)
    return [float(value) for value in values]
