"""Pictures as every core takes them: what makes one acceptable, how two are told apart, and where one stands.

Sizing and decoding are the API's work; turning pixels into embeddings is each core's own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import InvalidImageError

if TYPE_CHECKING:
    from engine.core import Image

CELL_PIXELS = 48
"""Side of the square that becomes one soft token: patches of 16 pixels, pooled 3 by 3."""
MAX_SOFT_TOKENS = 1120
"""Gemma 4's largest image budget."""


@dataclass(frozen=True, slots=True)
class ImageRun:
    """Places ``start`` to ``start + count`` of a prompt, filled by its n-th image."""

    start: int
    count: int


def image_key(image: Image) -> bytes:
    """Return a digest of a picture's size and pixels."""
    digest = hashlib.blake2b(f"{image.width}x{image.height}:".encode(), digest_size=16)
    digest.update(image.rgb)
    return digest.digest()


def check_image(image: Image, index: int) -> None:
    """Refuse a picture that the tower cannot take as it is.

    Raises:
        InvalidImageError: sides are no multiples of 48, the pixels do not fill them, or it needs too many soft tokens.
    """
    if image.width <= 0 or image.height <= 0 or image.width % CELL_PIXELS or image.height % CELL_PIXELS:
        message = f"images[{index}]: {image.width}x{image.height} is no multiple of {CELL_PIXELS} pixels on both sides"
        raise InvalidImageError(message)
    if len(image.rgb) != image.width * image.height * 3:
        message = f"images[{index}]: {len(image.rgb)} bytes do not fill {image.width}x{image.height} RGB pixels"
        raise InvalidImageError(message)
    if image.soft_tokens > MAX_SOFT_TOKENS:
        message = f"images[{index}]: {image.soft_tokens} soft tokens are more than {MAX_SOFT_TOKENS}"
        raise InvalidImageError(message)
