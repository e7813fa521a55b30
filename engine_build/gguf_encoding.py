"""Turns checkpoint tensors into the bytes of a GGUF type, piece by piece, so that memory stays bounded.

It knows number formats only; which tensor takes which type is decided in ``gguf_types``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from engine_build.errors import ExportError
from engine_build.ggml_quantize import quantize_rows
from engine_build.gguf_tensors import RGB_CHANNELS, TensorPlan
from engine_build.gguf_types import WeightType

if TYPE_CHECKING:
    from engine_build.safetensors_checkpoint import StoredTensor

# Rows are converted in pieces of about this many values: 64 MiB as float32.
PIECE_VALUES = 16 * 1024 * 1024
PLAIN_TYPES = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)

__all__ = ["WeightType", "encode", "encoded_bytes"]


def encoded_bytes(plan: TensorPlan, encoding: GGMLQuantizationType) -> int:
    """Return the size of one tensor in the GGUF file."""
    block_size, block_bytes = GGML_QUANT_SIZES[encoding]
    values = 1
    for side in plan.shape:
        values *= side
    return values // block_size * block_bytes


def encode(stored: StoredTensor, plan: TensorPlan, encoding: GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """Read one tensor and return its bytes in the GGUF file.

    Raises:
        ExportError: a value is not finite, in the checkpoint or in the new type.
    """
    out = np.empty(encoded_bytes(plan, encoding), dtype=np.uint8)
    step = max(1, PIECE_VALUES // stored.shape[-1])
    position = 0
    for start in range(0, stored.row_count, step):
        piece = stored.rows(start, min(start + step, stored.row_count))
        if plan.patch_size is not None:
            piece = _channels_first(piece, plan.patch_size)
        encoded = _convert(piece, plan, encoding)
        out[position : position + encoded.size] = encoded
        position += encoded.size
    return out


def _channels_first(pixels: npt.NDArray[np.float32], patch_size: int) -> npt.NDArray[np.float32]:
    """Rearrange columns ``(row, column, channel)`` to ``(channel, row, column)``, the order of a convolution kernel."""
    grid = pixels.reshape(-1, patch_size, patch_size, RGB_CHANNELS)
    return np.ascontiguousarray(grid.transpose(0, 3, 1, 2)).reshape(pixels.shape)


def _convert(piece: npt.NDArray[np.float32], plan: TensorPlan, encoding: GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """Convert rows to the bytes of one type."""
    if not np.isfinite(piece).all():
        msg = f"tensor {plan.source!r}: has values that are not finite"
        raise ExportError(msg)
    if encoding not in PLAIN_TYPES:
        return quantize_rows(piece, encoding)
    with np.errstate(over="ignore"):
        data: npt.NDArray[Any] = quants.quantize(piece, encoding)
    if encoding is GGMLQuantizationType.F16 and not np.isfinite(data).all():
        msg = f"tensor {plan.source!r}: has values beyond float16; use bf16 or f32"
        raise ExportError(msg)
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
