"""Resizing: the same pixels with vector instructions and without, for whatever can be decoded."""

from __future__ import annotations

import platform

import numpy as np
import PIL.Image
import pytest

from api.media import resample
from api.media.resample import Box, resize
from tests.fakes.corpus import photo

WHOLE = photo((301, 203))
MODES = ["L", "RGB", "RGBa", "La", "CMYK"]


@pytest.mark.parametrize("size", [(96, 48), (912, 672), (48, 480), (301, 48)])
@pytest.mark.parametrize("box", [None, (0.0, 0.0, 300.5, 202.125)])
@pytest.mark.parametrize("mode", MODES)
def test_result_is_that_of_pillow(mode: str, box: Box | None, size: tuple[int, int]) -> None:
    """Smaller, larger, or only in one direction: first the width, then the height; nothing but rounding differs."""
    picture = WHOLE.convert("RGBA").convert("RGBa") if mode == "RGBa" else _in_mode(mode)
    left, top, right, bottom = box or (0.0, 0.0, *WHOLE.size)
    bicubic = PIL.Image.Resampling.BICUBIC
    narrowed = picture.resize((size[0], WHOLE.height), bicubic, (left, 0, right, WHOLE.height))
    wanted = narrowed.resize(size, bicubic, (0, top, size[0], bottom))

    found = resize(picture, size, box)

    assert (found.mode, found.size) == (mode, size)
    difference = np.abs(_pixels(found) - _pixels(wanted))
    assert float(difference.mean()) < 0.02
    assert int(difference.max()) <= 2


def _in_mode(mode: str) -> PIL.Image.Image:
    return WHOLE.convert("LA").convert("La") if mode == "La" else WHOLE.convert(mode)


def _pixels(picture: PIL.Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.frombuffer(picture.tobytes(), np.uint8).astype(np.int16)


def test_picture_of_the_right_size_is_returned_as_it_is() -> None:
    """Nothing is done where nothing is asked for."""
    assert resize(WHOLE, WHOLE.size) is WHOLE


def test_machines_without_the_library_resize_with_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has no build, or Pillow is of a version that it does not know, the pixels are Pillow's own."""
    monkeypatch.setattr(resample, "IS_VECTORISED", False)

    found = resize(WHOLE, (96, 48), (0.0, 0.0, 300.5, 203.0))

    narrowed = WHOLE.resize((96, 203), PIL.Image.Resampling.BICUBIC, (0, 0, 300.5, 203))
    assert found.tobytes() == narrowed.resize((96, 48), PIL.Image.Resampling.BICUBIC).tobytes()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the library is installed on x86-64 only")
def test_library_is_used_where_it_is_installed() -> None:
    """A new version of Pillow or of the library must not make pictures slow unnoticed."""
    assert resample.IS_VECTORISED
