"""Train the demo checkpoints: ``python -m demo.train`` writes the Hugging Face layout of each.

Stages: tokenizer, vision tower (shared by both), the mixture, then the dense checkpoint, which starts from the mixture.
Everything is drawn from one seed, and the number of steps, never a clock, decides the schedule; runs on the same machine
and library versions repeat exactly.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import multiprocessing

from demo.data import Encoder, PicturePool
from demo.model import DemoModel
from demo.model_config import CONFIGS
from demo.recipes import RECIPES
from demo.tokenizer import write_tokenizer
from demo.trainer import Trainer
from demo.vision import make_pool, train_vision
from demo.workers import Workers

log = logging.getLogger("demo.train")
_VISION_FILE: Final = "vision.pt"
_PICTURES_FILE: Final = "pictures.pt"
_STAGES: Final = ("vision", *CONFIGS)
_MOST_PROCESSES: Final = 2
_ENVIRONMENT: Final = {
    # Threads that spin while they wait make two threads ten times slower than one on a machine that does anything else.
    "OMP_WAIT_POLICY": "PASSIVE",
    # oneDNN prepares every shape of a product once and forgets the oldest of more than these.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
    # Every step needs the same memory again, so the C library keeps what is freed.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""Of the processes that train, where the user does not say otherwise."""


def _make_vision(out: Path, seed: int, device: torch.device) -> None:
    """Train the tower; one that lies in the folder already is kept."""
    if (out / _VISION_FILE).exists():
        return
    torch.manual_seed(seed)
    model = DemoModel(CONFIGS["demo-moe"]).to(device)
    colour, shape = train_vision(model, seed, device)
    log.info("vision: colour %.2f, shape %.2f on held-out pictures", colour, shape)
    unfinished = out / f"{_VISION_FILE}.part"
    torch.save({"tower": model.model.vision_tower.state_dict(), "projector": model.model.embed_vision.state_dict()}, unfinished)
    unfinished.rename(out / _VISION_FILE)


def _load_vision(model: DemoModel, out: Path) -> None:
    """Load the pretrained tower and projector into the model."""
    saved = torch.load(out / _VISION_FILE, map_location=next(model.parameters()).device, weights_only=True)
    model.model.vision_tower.load_state_dict(saved["tower"])
    model.model.embed_vision.load_state_dict(saved["projector"])


@dataclass(frozen=True)
class _Run:
    """What the text stages of a run have in common."""

    out: Path
    seed: int
    device: torch.device
    workers: Workers

    def make(self, name: str) -> None:
        """Train one checkpoint; the dense one starts from what the mixture knows."""
        torch.manual_seed(self.seed)
        model = DemoModel(CONFIGS[name]).to(self.device)
        pool = None
        if name == "demo-dense":
            model.inherit(load_file(self.out / "demo-moe" / "model.safetensors", device=str(self.device)))
            pool = self._pictures(model)
        encoder = Encoder(Tokenizer.from_file(str(self.out / "tokenizer.json")))
        trainer = Trainer(model, encoder, partial(self._look, model), self.seed + 3, self.out / name, self.workers, pool)
        trainer.train(RECIPES[name])

    def _look(self, model: DemoModel) -> PicturePool:
        _load_vision(model, self.out)
        return self._pictures(model)

    def _pictures(self, model: DemoModel) -> PicturePool:
        """Return the pictures as the model's tower sees them; those that lie in the folder are not encoded again."""
        path = self.out / _PICTURES_FILE
        is_there = self.workers.gather(path.exists())
        if all(is_there):
            return PicturePool.load(path)
        pool = make_pool(model, self.seed + 2, self.device, self.workers)
        if self.workers.is_first:
            unfinished = path.with_name(f"{path.name}.part")
            pool.save(unfinished)
            unfinished.rename(path)
        return pool


def _work(rank: int, options: argparse.Namespace, meeting: Path) -> None:
    """Run the stages in one of the processes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    run = _Run(options.out, options.seed, torch.device(options.device), Workers.join(rank, options.processes, meeting))
    for stage in (stage for stage in _STAGES if stage in (options.only or _STAGES)):
        if stage != "vision":
            run.make(stage)
        elif run.workers.is_last:
            _make_vision(run.out, run.seed, run.device)
    run.workers.leave()


def _arguments() -> argparse.Namespace:
    on_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=_STAGES, help="run these stages only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if on_cuda else "cpu")
    parser.add_argument("--processes", type=int, choices=range(1, _MOST_PROCESSES + 1), default=1 if on_cuda else min(_MOST_PROCESSES, os.cpu_count() or 1), help="processes that share the work; one each for the first two cores, or one on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    options = parser.parse_args()
    stages: Sequence[str] = options.only or _STAGES
    for stage, needs, path in (("demo-moe", "vision", _VISION_FILE), ("demo-dense", "vision", _VISION_FILE), ("demo-dense", "demo-moe", "demo-moe/model.safetensors")):
        if stage in stages and needs not in stages and not (options.out / path).exists():
            parser.error(f"--only: {stage} needs {options.out / path}, which is not there; name {needs}, too")
    return options


def _loopback() -> dict[str, str]:
    """Let the processes meet on the loopback interface: not every machine can resolve its own name."""
    found = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {"GLOO_SOCKET_IFNAME": found[0]} if found else {}


def main() -> None:
    """Run all stages; a finished vision stage whose results lie in the output folder is not repeated."""
    options = _arguments()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if not (tokenizer_path := out / "tokenizer.json").exists():
        write_tokenizer(tokenizer_path, options.seed)
    for name, value in (_ENVIRONMENT | _loopback()).items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_work, (options, Path(folder) / "meeting"), nprocs=options.processes)


if __name__ == "__main__":
    main()
