"""Our decoding against pixels of the model's own image processor, for two hundred pictures of all shapes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.image_reference import chosen, ours
from benchmarks.image_set import COUNT, sample

REFERENCE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "image_reference.json").read_text()
)["pictures"]
GROUP = 20
ALWAYS = 20
"""The first pictures are of every format and size, the others more of the same: making them takes far longer."""


@pytest.mark.parametrize(
    "start",
    [pytest.param(start, marks=() if start < ALWAYS else pytest.mark.slow) for start in range(0, COUNT, GROUP)],
)
def test_pixels_are_those_of_the_models_processor(start: int) -> None:
    """Size and budget agree, and 256 pixels of each picture differ by less than 1/255 in the mean."""
    for number in range(start, start + GROUP):
        item, wanted = sample(number), REFERENCE[number]
        pixels = ours(item)

        assert [pixels.shape[1], pixels.shape[0]] == wanted["size"], item.name
        reference = np.frombuffer(base64.b64decode(wanted["pixels"]), np.uint8).reshape(-1, 3)
        assert float(np.abs(chosen(number, pixels) - reference).mean()) < 1.0, item.name


def test_reference_has_all_shapes() -> None:
    """From one pixel wide to 8000 x 8000, at every budget."""
    assert len(REFERENCE) == COUNT
    assert {wanted["budget"] for wanted in REFERENCE} == {70, 140, 280, 560, 1120}
