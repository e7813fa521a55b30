"""From the bytes of a picture file to the pixels that the vision tower takes. The input is hostile.

Functions without state, so that they run the same in a decoder process (``api.media.decoder_process``) and in a test.
The header is checked before any pixel is decoded, and nothing larger than needed is made: a JPEG is decoded at reduced
scale, and what the resizing does not need is done after it.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import IO, Final

import PIL.Image
import PIL.ImageChops
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from api.media.errors import DecodeError
from api.media.header import Bytes, Header, HeaderError, UnknownFormatError, has_many_scans, read_header
from api.media.jpeg_scale import is_fine_enough, scales
from api.media.png import is_complete, is_interlaced, pixel_chunks
from api.media.polyglot import second_format
from api.media.resample import Box, resize
from api.media.size import Budget, UnsizableError, fit, smallest_lossless_budget
from engine.core import Image

MAX_PIXELS: Final = 80_000_000
MAX_SIDE: Final = 32_768
MAX_RATIO: Final = 10_000
"""Longest side by shortest."""
MAX_SCANS: Final = 200
"""Scans of a progressive JPEG. Encoders write about ten; each costs a pass over all coefficients."""

# Pillow's own guard warns on standard error and counts differently; the header check below replaces it.
PIL.Image.MAX_IMAGE_PIXELS = None
# Formats are registered when their module is imported; naming them keeps Pillow from importing all that it has.
_PLUGINS: Final = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)

_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation."""
_FIRST_SIDEWAYS: Final = 5
_WITH_ALPHA: Final = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})

# What Pillow's decoders raise for damaged files is not one class; none of it is a fault of this server.
DAMAGE: Final = (
    OSError, ValueError, SyntaxError, struct.error, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    AssertionError, RuntimeError, HeaderError,
)  # fmt: skip


def decode_image(data: bytes, budget: Budget) -> Image:
    """Return the picture as ``decode_picture`` makes it, as bytes of its own.

    Raises:
        DecodeError: when the file is damaged, too large, or of an impossible shape.
    """
    picture = decode_picture(data, io.BytesIO(data), budget)
    return Image(rgb=picture.tobytes(), width=picture.width, height=picture.height)


def decode_picture(data: Bytes, file: IO[bytes], budget: Budget) -> PIL.Image.Image:
    """Decode the first frame upright, lay it over white, and resize it to the budget; the result's mode is RGB.

    Args:
        data: the file's bytes, for what is checked before it is decoded.
        file: the same bytes, for Pillow.
        budget: which size is wanted.

    Raises:
        DecodeError: when the file is damaged, too large, or of an impossible shape.
    """
    header = check_header(data)
    name = header.format
    try:
        # What Pillow finds odd is for nobody to read; hostile files could fill a log with it.
        with warnings.catch_warnings(action="ignore"), PIL.Image.open(file, formats=(name,)) as picture:
            # A frame may be larger than the file's own header says; Pillow has read that too by now.
            check_size(*picture.size)
            return _decode(picture, data, budget)
    except UnsizableError as error:
        raise DecodeError("the image is too small or too narrow") from error
    except (MemoryError, OverflowError) as error:
        raise DecodeError(f"the {name} image is too large to be decoded") from error
    except DAMAGE as error:
        raise DecodeError(f"the {name} image is damaged or incomplete") from error


def check_header(data: Bytes) -> Header:
    """Return the header of a file that may be decoded.

    Raises:
        DecodeError: saying what is wrong with it.
    """
    try:
        header = read_header(data)
    except UnknownFormatError as error:
        raise DecodeError("the data is not a JPEG, PNG, GIF, WebP or BMP image") from error
    except (HeaderError, ValueError) as error:
        raise DecodeError("the image is damaged or incomplete: its header cannot be read") from error
    check_size(header.width, header.height)
    other = second_format(data)
    if other is not None:
        raise DecodeError(f"the {header.format} image is a {other} at the same time")
    if header.is_progressive and has_many_scans(data, MAX_SCANS):
        raise DecodeError(f"the JPEG image has more than {MAX_SCANS} scans")
    return header


def check_size(width: int, height: int) -> None:
    """Check what a header promises.

    Raises:
        DecodeError: naming the limit that is passed.
    """
    if width < 1 or height < 1:
        raise DecodeError("the image has no pixels")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise DecodeError(
            f"the image has {width} x {height} pixels; at most {MAX_SIDE} per side and {MAX_PIXELS} in all are accepted"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DecodeError(f"the image is {width} x {height}; its sides may differ by a factor of {MAX_RATIO} at most")


def _decode(picture: PIL.Image.Image, data: Bytes, budget: Budget) -> PIL.Image.Image:
    turn = _turn(picture)
    width, height = picture.size if turn < _FIRST_SIDEWAYS else reversed(picture.size)
    tokens = smallest_lossless_budget(width, height) if budget.lossless else budget.tokens
    size = fit(width, height, tokens)
    # Turning the small result is cheaper than turning the picture, and the same: bicubic weights are symmetric.
    size = size if turn < _FIRST_SIDEWAYS else (size[1], size[0])
    if picture.format in {"JPEG", "MPO"}:
        loaded, box = _load_jpeg(picture, size, len(data))
    else:
        loaded, box = _load(picture, data), None
    result = _over_white(resize(_prepare(loaded), size, box))
    return result.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else result


def _load_jpeg(picture: PIL.Image.Image, size: tuple[int, int], file_bytes: int) -> tuple[PIL.Image.Image, Box | None]:
    """Decode at the smallest scale that is fine enough; return the part of the result that is the picture, too."""
    whole = picture.size
    for scale in scales(whole, size, file_bytes):
        attempt, box = picture, None
        if scale > 1:
            picture.fp.seek(0)  # type: ignore[attr-defined] # a picture from a file has one
            attempt = PIL.Image.open(picture.fp, formats=("JPEG",))  # type: ignore[attr-defined]
            # Sides that are no multiple of the scale are rounded up: the last row and column are only partly picture.
            attempt.draft(None, (whole[0] // scale, whole[1] // scale))
            box = (0.0, 0.0, whole[0] / scale, whole[1] / scale)
        # Read in one go: at the end of each part that it is given, the library starts the block anew.
        attempt.decodermaxblock = file_bytes  # type: ignore[attr-defined] # a picture from a file has one
        attempt.load()
        if scale == 1 or is_fine_enough(attempt, size):
            break
    return attempt, box


def _load(picture: PIL.Image.Image, data: Bytes) -> PIL.Image.Image:
    """Decode the pixels.

    Raises:
        HeaderError: some are missing, which Pillow does not say of every PNG.
    """
    chunks = pixel_chunks(data) if picture.format == "PNG" else []
    picture.load()
    if chunks:
        # Rows that are missing stay empty. Most pictures have something in their last row, and then none is missing.
        last_row = picture.crop((0, picture.height - 1, picture.width, picture.height))
        if (is_interlaced(data) or last_row.getbbox() is None) and not is_complete(data, chunks):
            raise HeaderError
    return picture


def _turn(picture: PIL.Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if there is none that can be read."""
    try:
        turn = picture.getexif().get(_ORIENTATION, 1)
    except DAMAGE:
        return 1
    return turn if turn in _UPRIGHT else 1


def _prepare(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Convert what cannot be resized as it is: 16 bits, palettes, one bit, colours that are transparent."""
    if picture.mode.startswith("I") or picture.mode == "F":
        # 65,535 / 257 is 255: both ends of the range stay where they are.
        picture = picture.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    elif picture.mode == "PA" or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in _WITH_ALPHA:
        # Colours weighted by their opacity: then resizing and laying over white may change places.
        return picture.convert("La" if picture.mode in {"LA", "La"} else "RGBa")
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in {"RGB", "L"} else picture.convert("RGB")


def _over_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return the picture in RGB; colours weighted by opacity get as much white as they lack."""
    if picture.mode not in {"La", "RGBa"}:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    *colours, alpha = picture.split()
    white = PIL.ImageChops.invert(alpha)
    laid = [PIL.ImageChops.add(colour, white) for colour in colours]
    return PIL.Image.merge("RGB", laid if len(laid) > 1 else laid * 3)
