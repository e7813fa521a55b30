"""Pictures of one coloured shape on a plain, shaded or noisy background, drawn at a random size.

A picture is drawn at its own size and resized by the caller exactly as the server resizes what a user sends.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.lexicon import COLORS, SHAPES

_SIDES = (48, 64, 64, 96, 100, 128, 200, 224, 256, 256, 300, 320, 400, 480, 512)


@dataclass(frozen=True)
class Picture:
    """What a picture shows, and the seed of everything else about it."""

    color: str
    shape: str
    seed: int

    @property
    def label(self) -> str:
        """Name it, as in ``a red circle``."""
        article = "an" if self.color[0] in "aeiou" else "a"
        return f"{article} {self.color} {self.shape}"


def make_picture(rng: random.Random) -> Picture:
    """Choose colour, shape and seed."""
    return Picture(rng.choice(list(COLORS)), rng.choice(SHAPES), rng.getrandbits(32))


def make_size(rng: random.Random) -> tuple[int, int]:
    """Choose a width and a height as users' pictures have them."""
    width = rng.choice(_SIDES)
    if rng.random() < 0.5:
        return width, width
    return width, min(max(int(width * rng.choice((0.5, 0.6, 0.75, 0.75, 1.33, 1.6, 1.78))), 40), 640)


def fit(image: Image.Image, budget: int) -> Image.Image:
    """Resize to Gemma 4's size for a budget of soft tokens: both sides multiples of 48, the ratio kept."""
    width, height = image.size
    factor = math.sqrt(budget * 9 * 256 / (width * height))
    sides = (int(factor * width // 48) * 48, int(factor * height // 48) * 48)
    return image.resize(sides, Image.Resampling.BICUBIC)


def draw(picture: Picture, size: tuple[int, int] | None = None) -> Image.Image:
    """Draw the picture in RGB, at ``size`` or at a size that its seed chooses."""
    rng = random.Random(picture.seed)
    width, height = size or make_size(rng)
    fill = _shade(rng, COLORS[picture.color], 14)
    image = _background(rng, width, height, COLORS[picture.color])
    scale = 4 if rng.random() < 0.7 else 1  # without supersampling the edges are hard, as many programs draw them
    layer = Image.new("L", (width * scale, height * scale), 0)
    _draw_shape(rng, ImageDraw.Draw(layer), picture.shape, (width * scale, height * scale))
    left, top, right, bottom = layer.getbbox() or (0, 0, scale, scale)
    left, top, right, bottom = left // scale, top // scale, -(-right // scale), -(-bottom // scale)
    layer = layer.crop((left * scale, top * scale, right * scale, bottom * scale))
    if scale > 1:
        layer = layer.resize((right - left, bottom - top), Image.Resampling.BOX)
    image.paste(fill, (left, top, right, bottom), layer)
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0)))
    return image


def _shade(rng: random.Random, color: tuple[int, int, int], spread: int) -> tuple[int, int, int]:
    """Move a colour a little; one in three is the pure colour that programs use by name."""
    if rng.random() < 0.34:
        pure = {(220, 30, 30): (255, 0, 0), (30, 160, 50): (0, 128, 0), (30, 60, 220): (0, 0, 255), (245, 220, 30): (255, 255, 0),
                (245, 135, 20): (255, 165, 0), (135, 40, 160): (128, 0, 128), (15, 15, 15): (0, 0, 0), (245, 245, 245): (255, 255, 255)}  # fmt: skip
        if color == (30, 160, 50) and rng.random() < 0.4:
            return (0, 255, 0)
        return pure[color]
    r, g, b = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in color)
    return r, g, b


def _background(rng: random.Random, width: int, height: int, color: tuple[int, int, int]) -> Image.Image:
    """Make a plain, shaded or noisy background that differs clearly from ``color``."""
    while True:
        kind = rng.random()
        if kind < 0.45:
            base = (255, 255, 255)
        elif kind < 0.55:
            base = (0, 0, 0)
        elif kind < 0.8:
            grey = rng.randint(90, 235)
            base = (grey, grey, grey)
        else:
            base = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if sum(abs(a - b) for a, b in zip(base, color, strict=True)) > 220:
            break
    seed, style = rng.getrandbits(32), rng.random()
    if style >= 0.35:
        return Image.new("RGB", (width, height), base)
    pixels = np.full((height, width, 3), base, np.float32)
    if style < 0.2:
        generator = np.random.default_rng(seed)
        pixels += generator.normal(0, rng.uniform(3, 10), (height, width, 1))
    else:
        ramp = np.linspace(-25, 25, width, dtype=np.float32) if rng.random() < 0.5 else np.linspace(-25, 25, height, dtype=np.float32)[:, None]
        pixels += np.broadcast_to(ramp, (height, width))[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_shape(rng: random.Random, canvas: ImageDraw.ImageDraw, shape: str, size: tuple[int, int]) -> None:
    """Draw a white shape of a random size, place and (but for squares and triangles, slight) turn."""
    width, height = size
    radius = min(width, height) * rng.uniform(0.27, 0.47)
    x, y = (rng.uniform(radius, side - radius) for side in (width, height))
    if rng.random() < 0.4:
        x, y = width / 2, height / 2
    if shape == "circle":
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return
    if shape == "square":
        side = radius * 0.9
        turn = rng.choice((0.0, 0.0, 0.0, rng.uniform(-0.2, 0.2)))
        corners = [(side * a, side * b) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        points = [(x + a * math.cos(turn) - b * math.sin(turn), y + a * math.sin(turn) + b * math.cos(turn)) for a, b in corners]
    elif shape == "triangle":
        turn = rng.choice((0.0, 0.0, 0.0, rng.uniform(-0.3, 0.3)))
        points = [(x + radius * math.sin(turn + i * math.tau / 3), y - radius * math.cos(turn + i * math.tau / 3)) for i in range(3)]
    else:
        turn = rng.choice((0.0, 0.0, rng.uniform(-0.3, 0.3)))
        inner = radius * rng.uniform(0.36, 0.46)
        points = [
            (x + (radius, inner)[i % 2] * math.sin(turn + i * math.tau / 10), y - (radius, inner)[i % 2] * math.cos(turn + i * math.tau / 10))
            for i in range(10)
        ]
    canvas.polygon(points, fill=255)
