"""Two hundred pictures of all shapes, kinds and contents, made by code: what our decoding is compared with the model's.

Every picture follows from its number alone, so that the file with the reference and the test that reads it
(``tests/data/image_reference.json``) mean the same pictures. Nothing here knows how they are decoded.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import PIL.Image
import PIL.ImageDraw

COUNT: Final = 200
BUDGETS: Final = (70, 140, 280, 560, 1120)
_EXTREME: Final = (
    (1, 1), (1, 2), (2, 1), (1, 48), (1, 333), (777, 1), (1, 2000), (3000, 1), (1, 8000), (8000, 1), (2, 5000),
    (3, 900),
    (900, 3), (47, 49), (48, 48), (49, 8000), (8000, 100),
    (16, 16), (5, 7), (100, 1000),
)  # fmt: skip
_LARGE: Final = ((8000, 8000), (4000, 3000), (3000, 4000), (8000, 2000), (6000, 4000), (4032, 3024))
_FORMATS: Final = ("JPEG", "PNG", "JPEG", "WEBP", "JPEG", "BMP", "JPEG", "PNG", "JPEG", "GIF")
_LARGE_PIXELS: Final = 10_000_000
_SEED: Final = 20_261_121


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoded picture and the budget at which it is compared."""

    number: int
    name: str
    data: bytes
    budget: int


def sample(number: int) -> Sample:
    """Return the picture with this number, 0 to 199."""
    rng = random.Random(_SEED + number)  # noqa: S311 - the same pictures every time
    size = _size(number, rng)
    kind = _FORMATS[number % len(_FORMATS)]
    is_large = size[0] * size[1] > _LARGE_PIXELS
    content = "photo" if is_large else rng.choice(("photo", "photo", "smooth", "drawing", "text", "noise"))
    picture = _CONTENTS[content](size, number)
    if number % 11 == 5:  # noqa: PLR2004 - some are grey
        picture = picture.convert("L")
    options: dict[str, Any] = {}
    if kind == "JPEG":
        options = {
            "quality": rng.choice((50, 75, 85, 92)),
            "subsampling": rng.choice((0, 1, 2)),
            "progressive": number % 7 == 0,
        }
    elif kind == "PNG":
        options = {"compress_level": 1}
    elif kind == "WEBP":
        options = {"quality": 80, "method": 0}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Sample(number, f"{kind} {content} {size[0]}x{size[1]}", file.getvalue(), BUDGETS[number % len(BUDGETS)])


def _size(number: int, rng: random.Random) -> tuple[int, int]:
    if number < len(_EXTREME):
        return _EXTREME[number]
    if number - len(_EXTREME) < len(_LARGE):
        return _LARGE[number - len(_EXTREME)]
    # JPEGs are often photographs, and large enough for decoding at reduced scale.
    smallest, largest = (4.5, 6.8) if _FORMATS[number % len(_FORMATS)] == "JPEG" else (3.0, 6.0)
    area = 10 ** rng.uniform(smallest, largest)
    ratio = 10 ** rng.uniform(-0.8, 0.8)
    return max(1, round((area * ratio) ** 0.5)), max(1, round((area / ratio) ** 0.5))


def photo(size: tuple[int, int], number: int, *, slope: float = 1.15) -> PIL.Image.Image:
    """Return a field whose detail falls with its fineness as in photographs, and some hard edges."""
    # Made at half the size at most 1,500, then tiled: what large pictures repeat makes no difference here.
    width, height = min(size[0], 1500), min(size[1], 1500)
    rng = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(3):
        spectrum = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
        plane = np.fft.irfft2(spectrum / frequency**slope, (height, width))
        planes.append(plane / max(float(plane.std()), 1e-9))
    light = planes[0] * 40
    colours = np.stack([light + planes[1] * 12 + 120, light + 118, light - planes[2] * 12 + 110], -1)
    tile = PIL.Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    picture = PIL.Image.new("RGB", size)
    for top in range(0, size[1], height):
        for left in range(0, size[0], width):
            picture.paste(tile, (left, top))
    return _draw_on(picture, number)


def _draw_on(picture: PIL.Image.Image, number: int) -> PIL.Image.Image:
    rng = random.Random(number)  # noqa: S311 - the same shapes every time
    canvas = PIL.ImageDraw.Draw(picture)
    for _ in range(6):
        left, top = rng.randrange(picture.width), rng.randrange(picture.height)
        right, bottom = left + rng.randrange(picture.width) // 4, top + rng.randrange(picture.height) // 4
        colour = tuple(rng.randrange(256) for _ in range(3))
        rng.choice((canvas.rectangle, canvas.ellipse, canvas.line))((left, top, right, bottom), colour)
    return picture


def _smooth(size: tuple[int, int], number: int) -> PIL.Image.Image:
    return photo(size, number, slope=1.6)


def _drawing(size: tuple[int, int], number: int) -> PIL.Image.Image:
    return _draw_on(_draw_on(PIL.Image.new("RGB", size, "white"), number), number + 1)


def _text(size: tuple[int, int], number: int) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", size, "white")
    canvas = PIL.ImageDraw.Draw(picture)
    line = f"The quick brown fox no. {number} jumps over the lazy dog, 0123456789. " * (size[0] // 300 + 1)
    for top in range(0, size[1], 14):
        canvas.text((3, top), line, "black")
    return picture


def _noise(size: tuple[int, int], number: int) -> PIL.Image.Image:
    values = np.random.default_rng(number).normal(128, 20, (size[1], size[0], 3))
    return PIL.Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


_CONTENTS: Final = {"photo": photo, "smooth": _smooth, "drawing": _drawing, "text": _text, "noise": _noise}
