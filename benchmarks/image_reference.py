"""``python -m benchmarks.image_reference``: compares our decoding with transformers' ``Gemma4ImageProcessor``.

Runs where transformers is installed (``.venv-train``, and torchvision for the fast processor); nothing of the product
needs it. Decodes the two hundred pictures of ``benchmarks.image_set`` with both, prints the mean absolute differences,
and with ``--write`` stores 256 pixels of each of transformers' results; a test holds our decoding to these.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import io
import json
import statistics
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import PIL.Image
from rich.console import Console
from rich.table import Table

from api.media.decode import decode_image
from api.media.size import Budget
from benchmarks.image_set import COUNT, Sample, sample

REFERENCE: Final = Path(__file__).parent.parent / "tests" / "data" / "image_reference.json"
PIXELS: Final = 256
PATCH: Final = 16
Pixels = npt.NDArray[np.float32]


def load_processors() -> dict[str, Any]:
    """Return transformers' processors by name: the slow one (Pillow), and the fast one where torchvision is installed.

    Raises:
        ImportError: transformers is not installed.
    """
    has_torchvision = _import_torchvision()
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil  # noqa: PLC0415

    found: dict[str, Any] = {"slow": Gemma4ImageProcessorPil()}
    if has_torchvision:
        from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor  # noqa: PLC0415

        found["fast"] = Gemma4ImageProcessor()
    return found


def _import_torchvision() -> bool:
    """Import torchvision, also where its compiled part does not fit the build of torch: resizing does not use it."""
    for attempt in range(2):
        try:
            importlib.import_module("torchvision")
        except ImportError:
            return False
        except RuntimeError:
            if attempt:
                return False
            torch = importlib.import_module("torch")
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _kept.append(library)
    return True


_kept: list[Any] = []
"""Declarations last as long as the object that made them."""


def process(processor: Any, picture: PIL.Image.Image, budget: int, kind: str) -> Pixels:
    """Return a processor's result as pixels (height, width, 3), 0 to 255."""
    tensor = "np" if kind == "slow" else "pt"
    result = processor(images=picture, max_soft_tokens=budget, return_tensors=tensor)
    patches = np.asarray(result["pixel_values"][0], dtype=np.float32)
    positions = np.asarray(result["image_position_ids"][0])
    columns, rows = (int(positions[:, axis].max()) + 1 for axis in (0, 1))
    grid = patches[: columns * rows].reshape(rows, columns, PATCH, PATCH, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * PATCH, columns * PATCH, 3) * 255


def ours(item: Sample) -> Pixels:
    """Return our result as pixels (height, width, 3), 0 to 255."""
    image = decode_image(item.data, Budget(item.budget))
    return np.frombuffer(image.rgb, np.uint8).reshape(image.height, image.width, 3).astype(np.float32)


def chosen(number: int, pixels: Pixels) -> Pixels:
    """Return the pixels of a result that are stored and compared by the test."""
    places = np.random.default_rng(number).integers(0, pixels.shape[0] * pixels.shape[1], PIXELS)
    return pixels.reshape(-1, 3)[places]


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"store the reference in {REFERENCE.name}")
    write = parser.parse_args().write
    processors = load_processors()
    differences: dict[str, list[tuple[float, str]]] = {name: [] for name in processors}
    stored = []
    for number in range(COUNT):
        item = sample(number)
        own = ours(item)
        with PIL.Image.open(io.BytesIO(item.data)) as picture:
            results = {
                name: process(each, picture.convert("RGB"), item.budget, name) for name, each in processors.items()
            }
        for name, result in results.items():
            differences[name].append((float(np.abs(own - result).mean()), f"{item.name} at {item.budget}"))
        exact = results.get("fast", results["slow"])
        pixels = base64.b64encode(np.rint(chosen(number, exact)).astype(np.uint8).tobytes()).decode()
        stored.append({"size": [exact.shape[1], exact.shape[0]], "budget": item.budget, "pixels": pixels})
    _print(differences)
    if write:
        REFERENCE.write_text(json.dumps({"pictures": stored}, indent=0) + "\n")


def _print(differences: dict[str, list[tuple[float, str]]]) -> None:
    table = Table(title=f"Mean absolute difference of {COUNT} pictures, of 255", title_justify="left")
    for heading in ("transformers' processor", "median", "95th of 100", "largest", "of", "above 1"):
        table.add_column(heading)
    for name, found in differences.items():
        values = sorted(value for value, _ in found)
        largest, which = max(found)
        above = sum(value > 1 for value in values)
        row = (statistics.median(values), values[len(values) * 95 // 100], largest)
        table.add_row(name, *(f"{value:.3f}" for value in row), which, str(above))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
