"""Decoding: a picture becomes the pixels that a person would see on white paper, at the size of its budget."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL.Image import Exif

from api.media.decode import MAX_PIXELS, check_size, decode_image
from api.media.errors import DecodeError
from api.media.header import read_header
from api.media.size import BUDGETS, Budget, fit, smallest_lossless_budget
from tests.fakes.corpus import photo
from tests.fakes.pictures import BLUE, RED, encode, is_close, pixel

SMALL = Budget(70)


@pytest.mark.parametrize("budget", BUDGETS)
def test_size_is_that_of_the_budget(budget: int) -> None:
    """The result is as large as the budget says, and so is its buffer."""
    image = decode_image(encode(photo((640, 480))), Budget(budget))

    assert (image.width, image.height) == fit(640, 480, budget)
    assert len(image.rgb) == image.width * image.height * 3


def test_lossless_budget_follows_from_the_picture() -> None:
    """A budget that is to lose nothing is the smallest one that does not shrink the picture, turned upright."""
    exif = Exif()
    exif[0x0112] = 6
    data = encode(photo((900, 300)), "JPEG", exif=exif)

    image = decode_image(data, Budget(1120, lossless=True))

    assert (image.width, image.height) == fit(300, 900, smallest_lossless_budget(300, 900))


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_applied(turn: int) -> None:
    """Whichever way the camera was held, the result stands upright: red above left, blue below right."""
    upright = PIL.Image.new("RGB", (200, 100), "white")
    upright.paste(RED, (0, 0, 100, 50))
    upright.paste(BLUE, (100, 50, 200, 100))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(PIL.Image.Transpose(back[turn])) if turn in back else upright
    exif = Exif()
    exif[0x0112] = turn

    for kind, options in {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}.items():
        image = decode_image(encode(stored, kind, exif=exif, **options), SMALL)
        assert (image.width, image.height) == fit(200, 100, 70)
        assert is_close(pixel(image, 0.2, 0.2), RED, 12)
        assert is_close(pixel(image, 0.8, 0.8), BLUE, 12)


@pytest.mark.parametrize("size", [(97, 61), (480, 480), (1500, 1000)])
def test_transparency_over_white_is_exact(size: tuple[int, int]) -> None:
    """Resizing first and laying over white afterwards is the same as the other way round, up to rounding."""
    picture = photo(size)
    picture.putalpha(PIL.Image.radial_gradient("L").resize(size))
    white = PIL.Image.new("RGBA", size, "white")
    wanted = (
        PIL.Image.alpha_composite(white, picture).convert("RGB").resize(fit(*size, 280), PIL.Image.Resampling.BICUBIC)
    )

    image = decode_image(encode(picture), Budget(280))

    assert mean_difference(bytes(image.rgb), wanted.tobytes()) < 0.5


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}], ids=str)
def test_reduced_decoding_changes_little(budget: int, options: dict[str, Any]) -> None:
    """A JPEG that is decoded at reduced scale is within 1/255 of one that is decoded in full, for an odd size, too."""
    size = 2011, 1507
    detail = PIL.Image.effect_noise((400, 300), 90).resize(size, PIL.Image.Resampling.BICUBIC)
    picture = PIL.Image.merge("RGB", (detail, PIL.Image.linear_gradient("L").resize(size), detail.rotate(180)))
    data = encode(picture, "JPEG", **options)
    with PIL.Image.open(io.BytesIO(data)) as whole:
        wanted = whole.resize(fit(*size, budget), PIL.Image.Resampling.BICUBIC)

    image = decode_image(data, Budget(budget))

    assert mean_difference(bytes(image.rgb), wanted.tobytes()) < 1.0


def mean_difference(left: bytes, right: bytes) -> float:
    """Return the mean absolute difference of two buffers' bytes."""
    arrays = [np.frombuffer(part, np.uint8).astype(np.int16) for part in (left, right)]
    return float(np.abs(arrays[0] - arrays[1]).mean())


@pytest.mark.parametrize(
    ("size", "word"),
    [
        ((MAX_PIXELS, 2), "at most"),
        ((9000, 9000), "80000000 in all"),
        ((40_000, 10), "32768 per side"),
        ((10_001, 1), "factor of 10000"),
        ((0, 5), "no pixels"),
    ],
)
def test_size_limits_are_named(size: tuple[int, int], word: str) -> None:
    """What is refused for its size is told the limit that it passes."""
    with pytest.raises(DecodeError, match=word):
        check_size(*size)


def test_largest_pictures_are_accepted() -> None:
    """The largest square and the longest ribbon are within the limits."""
    check_size(8944, 8944)
    check_size(10_000, 1)
    check_size(32_768, 2441)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (17, 300), (1030, 5)])
def test_header_is_read_without_decoding(kind: str, size: tuple[int, int]) -> None:
    """Format and size come from the first bytes of the file."""
    header = read_header(encode(PIL.Image.new("RGB", size), kind))

    assert (header.format, header.width, header.height) == (kind, *size)


def test_progressive_is_seen_in_the_header() -> None:
    """Only a progressive JPEG can have many scans."""
    assert read_header(encode(photo(), "JPEG", progressive=True)).is_progressive
    assert not read_header(encode(photo(), "JPEG")).is_progressive
