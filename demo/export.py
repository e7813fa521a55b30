"""Turn trained checkpoints into what the repository ships: ``python -m demo.export``.

From the Hugging Face layout that training wrote come, per checkpoint, the same layout with half-precision weights, and
from that one source ``model.gguf`` and ``mmproj.gguf``. All hold the same numbers, so every engine computes the same.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load_file, save_file

from demo.model_config import CONFIGS
from engine_build.gguf_encoding import WeightType
from engine_build.gguf_export import export_checkpoint

log = logging.getLogger("demo.export")
CHECKPOINTS: Final = Path(__file__).parent / "checkpoints"
LARGEST_BYTES: Final = 15_000_000
_COPIED: Final = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json")


def halve(source: Path, target: Path) -> None:
    """Copy a Hugging Face layout with its weights rounded to float16."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        shutil.copyfile(source / name, target / name)
    weights = {name: value.astype(np.float16) for name, value in load_file(source / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def export(source: Path, target: Path) -> None:
    """Write one checkpoint in all its forms.

    Raises:
        ValueError: a file is larger than what the repository takes.
    """
    halve(source, target)
    export_checkpoint(target, target, WeightType.F16, name=target.name)
    for path in sorted(target.iterdir()):
        size = path.stat().st_size
        log.info("%s: %.2f MB", path, size / 1e6)
        if size > LARGEST_BYTES:
            msg = f"{path} has {size} bytes; the repository takes at most {LARGEST_BYTES} per file"
            raise ValueError(msg)


def main() -> None:
    """Export all trained checkpoints of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, default=Path("build/demo"), help="what demo.train wrote")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in CONFIGS:
        if (options.trained / name / "model.safetensors").exists():
            export(options.trained / name, options.out / name)


if __name__ == "__main__":
    main()
