"""From the bytes of a picture file to the pixels that the vision tower takes. The input is hostile.

One function without state, so that it runs the same in a thread, in a decoder process, or in a test. The header is
checked before any pixel is decoded.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

import PIL.Image
import PIL.ImageOps

from api.media.size import UnsizableError, fit, smallest_lossless_budget
from engine.core import Image

MAX_PIXELS: Final = 80_000_000
MAX_SIDE: Final = 32_768
MAX_RATIO: Final = 1_120
"""Longest side by shortest: beyond it one token row could not even show one column of it."""

# Pillow's own guard warns on standard error and counts differently; the header check below replaces it.
PIL.Image.MAX_IMAGE_PIXELS = None

_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)
_WEBP_TAG: Final = slice(8, 12)
_WHITE: Final = (255, 255, 255, 255)


class DecodeError(Exception):
    """Bytes that are no usable picture. ``message`` is safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens the picture may take. ``lossless`` picks the smallest budget that does not shrink it."""

    tokens: int
    lossless: bool = False


def sniff_format(data: bytes) -> str:
    """Return Pillow's name of the format, by the first bytes only.

    Raises:
        DecodeError: when it is none that is accepted.
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data.startswith(b"RIFF") and data[_WEBP_TAG] == b"WEBP":
        return "WEBP"
    raise DecodeError("the data is not a JPEG, PNG, GIF, WebP or BMP image")


def decode_image(data: bytes, budget: Budget) -> Image:
    """Decode the first frame upright, lay it over white, and resize it to the budget.

    Raises:
        DecodeError: when the file is damaged, too large, or of an impossible shape.
    """
    name = sniff_format(data)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=(name,)) as picture:
            _check_header(*picture.size)
            picture.load()
            upright = PIL.ImageOps.exif_transpose(picture)
            return _resize(_to_rgb(upright), budget)
    except UnsizableError as error:
        raise DecodeError("the image is too small or too narrow") from error
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, IndexError, KeyError, TypeError) as error:
        # What Pillow's decoders raise for damaged files is not one class; none of it is a fault of this server.
        raise DecodeError(f"the {name} image is damaged or incomplete") from error
    except (MemoryError, OverflowError) as error:
        raise DecodeError(f"the {name} image is too large") from error


def _check_header(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError("the image has no pixels")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise DecodeError(
            f"the image has {width} x {height} pixels; at most {MAX_SIDE} per side and {MAX_PIXELS} in all are accepted"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DecodeError(f"the image is {width} x {height}; its sides may differ by a factor of {MAX_RATIO} at most")


def _to_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Convert any mode to RGB; transparent places show white, 16-bit grey keeps its upper byte."""
    if picture.mode.startswith("I"):
        picture = picture.point(lambda value: value * (1 / 256)).convert("L")
    if picture.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, _WHITE), picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _resize(picture: PIL.Image.Image, budget: Budget) -> Image:
    tokens = smallest_lossless_budget(*picture.size) if budget.lossless else budget.tokens
    size = fit(*picture.size, tokens)
    if size != picture.size:
        # Pillow widens the bicubic kernel when it shrinks, which is the antialiasing of the model's own processor.
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    return Image(rgb=picture.tobytes(), width=size[0], height=size[1])
