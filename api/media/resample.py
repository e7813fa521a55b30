"""Resizes a decoded picture: bicubic with antialiasing, with vector instructions where a library for that is there.

Pillow widens the bicubic kernel when it shrinks, which is the antialiasing of the model's own processor. The other
library does the same sums, several times as fast; hardly a pixel differs, and by one step. It reads Pillow's memory as
it lies, and knows how that is laid out for some versions only.
"""

from __future__ import annotations

from typing import Final

import PIL
import PIL.Image

try:
    import cykooz_resizer as vectorised
except ImportError:  # no build for this machine
    vectorised = None

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge of the part of a picture that counts, in its pixels."""

_KNOWN_PILLOW: Final = range(12, 14)
"""Major versions of Pillow whose images the library can read, by its source and our tests."""
_KNOWN_MODES: Final = frozenset({"L", "RGB", "RGBa"})

IS_VECTORISED: Final = vectorised is not None and int(PIL.__version__.partition(".")[0]) in _KNOWN_PILLOW
"""Whether the library is used."""


def resize(picture: PIL.Image.Image, size: tuple[int, int], box: Box | None = None) -> PIL.Image.Image:
    """Return the picture, or the part of it in ``box``, at another size (width, height), in its own mode.

    Channels are independent of each other: colours must be weighted by their opacity already, if they have one.
    """
    if size == picture.size and box is None:
        return picture
    left, top, right, bottom = box or (0.0, 0.0, float(picture.width), float(picture.height))
    step = _vectorised if IS_VECTORISED and picture.mode in _KNOWN_MODES else _plain
    # First the width, then the height, as the model's own processor does: what is cut off at 0 and 255 in between makes
    # a difference. By themselves the libraries begin with either.
    narrowed = step(picture, (size[0], picture.height), (left, 0.0, right, float(picture.height)))
    return step(narrowed, size, (0.0, top, float(size[0]), bottom))


def _plain(picture: PIL.Image.Image, size: tuple[int, int], box: Box) -> PIL.Image.Image:
    return picture.resize(size, PIL.Image.Resampling.BICUBIC, box)


def _vectorised(picture: PIL.Image.Image, size: tuple[int, int], box: Box) -> PIL.Image.Image:
    left, top, right, bottom = box
    options = vectorised.ResizeOptions(
        resize_alg=vectorised.ResizeAlg.convolution(vectorised.FilterType.catmull_rom),
        use_alpha=False,
        crop_box=vectorised.CropBox(left, top, right - left, bottom - top),
    )
    result = PIL.Image.new(picture.mode, size)
    vectorised.Resizer().resize_pil(picture, result, options)
    return result
