"""Small pictures for tests, as files and as ``data:`` URLs."""

from __future__ import annotations

import base64
import io
from typing import Any

import PIL.Image

from engine.core import Image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(picture: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(colour: tuple[int, int, int] = BLUE, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    """Return a file of one colour."""
    return encode(PIL.Image.new("RGB", size, colour), kind)


def data_url(data: bytes, media_type: str = "image/png") -> str:
    """Return a file as a ``data:`` URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def by_url(url: str, **fields: Any) -> dict[str, Any]:
    """Return OpenAI's content part of a picture."""
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def pixel(image: Image, x: float, y: float) -> tuple[int, ...]:
    """Return the pixel at a place given as shares of width and height."""
    column, row = int(x * (image.width - 1)), int(y * (image.height - 1))
    start = (row * image.width + column) * 3
    return tuple(image.rgb[start : start + 3])


def is_close(left: tuple[int, ...], right: tuple[int, ...], tolerance: int = 6) -> bool:
    """Tell whether two colours are the same up to compression."""
    return all(abs(a - b) <= tolerance for a, b in zip(left, right, strict=True))
