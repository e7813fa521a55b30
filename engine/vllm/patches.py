"""Pictures as vLLM's Gemma 4 takes them: patches of pixels and where each stands.

Pure numpy. vLLM's own preprocessing would scale every picture to its budget and write the places into the prompt
itself; ours come sized and placed, so they are cut up here and vLLM's is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.core import Image

PATCH: Final = 16
"""Pixels of a patch's side; three by three patches are pooled to one soft token."""


def image_patches(image: Image) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return patches ``[patches, 16 * 16 * 3]`` with values 0 to 1, and their places ``[patches, 2]`` as (x, y).

    Patches go row by row, and so do the pixels of one patch, each with its three colours: the form of transformers'
    ``Gemma4ImageProcessor``. There is no padding: vLLM batches pictures of one size and loops over the others.
    """
    rows, columns = image.height // PATCH, image.width // PATCH
    pixels = np.frombuffer(image.rgb, np.uint8).astype(np.float32) / 255
    patches = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    down, across = np.indices((rows, columns))
    return np.ascontiguousarray(patches), np.stack((across, down), axis=-1).reshape(-1, 2)
