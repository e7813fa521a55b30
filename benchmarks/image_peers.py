"""``python -m benchmarks.image_peers FILE``: CPU time that transformers' processors need for one picture, as JSON.

``benchmarks.images`` runs it with an interpreter that has transformers; each figure is from the file's bytes to the
tensor, in one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from pathlib import Path

import PIL.Image
import torch

from benchmarks.image_reference import load_processors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=int, default=280)
    options = parser.parse_args()
    torch.set_num_threads(1)
    processors = load_processors()
    figures: dict[str, dict[str, float]] = {name: {} for name in processors}
    for file in options.files:
        data = file.read_bytes()
        for name, processor in processors.items():
            times = []
            for _ in range(options.rounds):
                start = time.process_time()
                with PIL.Image.open(io.BytesIO(data)) as picture:
                    processor(images=picture, max_soft_tokens=options.budget, return_tensors="pt")
                times.append(time.process_time() - start)
            figures[name][file.stem] = statistics.median(times)
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    main()
