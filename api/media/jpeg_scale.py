"""At which scale a JPEG is decoded: 1/8, 1/4, 1/2 or in full.

Decoding at reduced scale saves most of the work, but keeps only low frequencies of each 8 x 8 block, so the resized
result differs from that of a full decoding. How much follows from how fine the picture's detail is, which is measured
on a sample after decoding; when it is too much, the next larger scale is tried. The constants come from photographs,
text, noise and patterns at qualities 30 to 95; ``benchmarks/image_reference.py`` holds the outcome to the model's own
processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import PIL.Image
import PIL.ImageChops
import PIL.ImageStat

SCALES: Final = (8, 4, 2)
DETAIL_LIMIT: Final = 2.4
"""Detail (0 to 255) that is acceptable at exactly the wanted size. It grows with the square of how much larger the
decoded picture is. The mean difference of the result then stays below 1 of 255."""
_OVERSIZE: Final = 1.9
"""A scale that leaves so much more than the wanted size is nearly always fine enough."""
_LEAST_OVERSIZE: Final = 1.05
_SMOOTH_BITS: Final = 0.6
"""Bits per pixel below which a picture is probably smooth; reading it is also so fast that a vain try costs little."""
_TILES: Final = 5
_TILE_SIDE: Final = 80


def scales(size: tuple[int, int], wanted: tuple[int, int], file_bytes: int) -> Iterator[int]:
    """Yield the scales to try, most reduced first, 1 (in full) last.

    Args:
        size: width and height of the picture.
        wanted: to which it will be resized.
        file_bytes: the file's size.
    """
    is_smooth = file_bytes * 8 < _SMOOTH_BITS * size[0] * size[1]
    least = _LEAST_OVERSIZE if is_smooth else _OVERSIZE
    for scale in SCALES:
        if min(size[0] / wanted[0], size[1] / wanted[1]) >= least * scale:
            yield scale
    yield 1


def is_fine_enough(picture: PIL.Image.Image, wanted: tuple[int, int]) -> bool:
    """Tell whether a picture that was decoded at reduced scale may stand for the whole one."""
    oversize = min(picture.width / wanted[0], picture.height / wanted[1])
    return detail(picture) <= DETAIL_LIMIT * oversize * oversize


def detail(picture: PIL.Image.Image) -> float:
    """Return how much neighbouring pixels differ, 0 to 255: a mean over 25 places."""
    # The places are laid side by side, so that each step is taken once for all of them.
    width, height = (max(2, min(_TILE_SIDE, side - 1) // 2 * 2) for side in picture.size)
    places = PIL.Image.new(picture.mode, (width * _TILES, height * _TILES))
    for row in range(_TILES):
        for column in range(_TILES):
            # Every other place begins at an odd pixel, so that no pattern of two pixels is missed.
            shift = (row + column) % 2
            left = column * (picture.width - width - 1) // (_TILES - 1) // 2 * 2 + shift
            top = row * (picture.height - height - 1) // (_TILES - 1) // 2 * 2 + shift
            places.paste(picture.crop((left, top, left + width, top + height)), (column * width, row * height))
    smooth = places.reduce(2).resize(places.size, PIL.Image.Resampling.NEAREST)
    means = PIL.ImageStat.Stat(PIL.ImageChops.difference(places, smooth)).mean
    return sum(means) / len(means)
