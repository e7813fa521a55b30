"""Pictures that the demo checkpoints know: one big plain shape on white."""

from __future__ import annotations

import PIL.Image
import PIL.ImageDraw


def shape(colour: str, side: int = 192) -> PIL.Image.Image:
    """Return a filled circle that takes most of a white square."""
    image = PIL.Image.new("RGB", (side, side), "white")
    margin = side // 5
    PIL.ImageDraw.Draw(image).ellipse((margin, margin, side - margin, side - margin), fill=colour)
    return image
