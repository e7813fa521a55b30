"""Train the demo checkpoints: ``python -m demo.train`` writes the Hugging Face layout of each.

Stages: tokenizer, vision tower (shared by both), then each text model. Everything is drawn from one seed, and the
number of steps, never a clock, decides the schedule; runs on the same machine and library versions repeat exactly.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

# Threads that spin while they wait make two threads ten times slower than one on a machine that does anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from demo.conversations import BUILDERS, Conversation
from demo.data import Batch, Encoder, PicturePool, Stream, pack
from demo.model import DemoModel
from demo.model_config import CONFIGS, hf_config
from demo.recipes import RECIPES, Cycle, Diet
from demo.tokenizer import write_tokenizer
from demo.vision import make_pool, train_vision

log = logging.getLogger("demo.train")
_VISION_FILE: Final = "vision.pt"
_PICTURES_FILE: Final = "pictures.pt"


def _optimizers(model: DemoModel, cycle: Cycle) -> list[torch.optim.Optimizer]:
    """Give Muon the matrices inside the layers and AdamW the rest; the vision tower stays as it is."""
    named = [*model.model.language_model.named_parameters(), *model.model.embed_vision.named_parameters()]
    matrices = [value for name, value in named if value.ndim == 2 and "layers" in name]
    others = [value for name, value in named if not (value.ndim == 2 and "layers" in name)]
    return [
        torch.optim.Muon(matrices, lr=cycle.matrix_rate, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=cycle.other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _forward(model: DemoModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits at the learnt places and the balance loss."""
    language = model.model.language_model
    x = language.embed(batch.ids)
    if batch.soft_features is not None:
        soft = model.model.embed_vision(batch.soft_features)
        x = x.flatten(0, 1).index_copy(0, batch.soft_places, soft.to(x.dtype)).view_as(x)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=_has_bfloat16(x.device)):
        hidden, balance = language(x, batch.positions, (batch.sliding_mask, batch.global_mask))
    return language.logits(hidden.float().flatten(0, 1)[batch.targets]), balance


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 products are fast here; where they are emulated they are slower than float32."""
    if device.type == "cuda":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii")


def _rate(step: int, cycle: Cycle) -> float:
    warm = min(1.0, (step + 1) / 60)
    left = (cycle.steps - step) / (cycle.steps * (1 - cycle.hold))
    return warm * min(1.0, max(left, 0.0))


def _compiled(model: DemoModel) -> None:
    """Compile each layer where a C++ compiler is at hand; without one the training only takes longer."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415

    try:
        get_cpp_compiler()
    except Exception as error:  # noqa: BLE001
        log.warning("no C++ compiler (%s): layers run uncompiled", type(error).__name__)
        return
    for layer in model.model.language_model.layers:
        layer.compile()


@dataclass
class Trainer:
    """The text stage of one checkpoint."""

    model: DemoModel
    encoder: Encoder
    load_vision: Callable[[], PicturePool]
    """Puts the pretrained tower and projector into the model and encodes the pictures; called when the first is needed."""
    seed: int
    out: Path
    pool: PicturePool | None = None

    def train(self, cycles: Sequence[Cycle]) -> None:
        """Train the language model and the projector; at the end of each cycle the held-out score is logged."""
        self.model.model.vision_tower.requires_grad_(requires_grad=False)
        _compiled(self.model)
        ends: list[dict[str, Tensor]] = []
        for number, cycle in enumerate(cycles):
            self._run(cycle, self.seed + 10 * number)
            if cycle.averaged:
                ends.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})
                self.model.load_state_dict(_mean(ends))
            save(self.model, self.out.parent / "tokenizer.json", self.out)
            log.info("%s: held out: %s", self.model.config.name, score(self.model, self.encoder, self.pool))

    def _run(self, cycle: Cycle, seed: int) -> None:
        """Run one cycle; the weights are saved every thousand steps, so that nobody has to wait for the end to try them."""
        optimizers = _optimizers(self.model, cycle)
        began = time.monotonic()
        losses: list[float] = []
        streams: dict[int, Iterator[Batch]] = {}
        for step in range(cycle.steps):
            _set_rates(optimizers, _rate(step, cycle))
            batches = []
            for number, diet in enumerate(cycle.diets):
                if step >= diet.start * cycle.steps:
                    if number not in streams:
                        streams[number] = self._stream(diet, seed + number)
                    batches.append(next(streams[number]))
            losses += self._step(optimizers, batches)
            done = step + 1
            if done % 50 == 0:
                self._log(done, cycle, losses[-125:], time.monotonic() - began)
            if done % 1000 == 0:
                save(self.model, self.out.parent / "tokenizer.json", self.out)

    def _stream(self, diet: Diet, seed: int) -> Iterator[Batch]:
        if diet.pictures and self.pool is None:
            self.pool = self.load_vision()
        pool = self.pool if diet.pictures else None
        return iter(Stream(self.encoder, diet.shares, diet.rows, diet.length, seed, pool, diet.longest_pictures))

    def _log(self, done: int, cycle: Cycle, losses: list[float], spent_s: float) -> None:
        left_s = spent_s / done * (cycle.steps - done)
        loss = sum(losses) / len(losses)
        name = self.model.config.name
        log.info("%s: step %d of %d, loss %.4f, %.0f s, about %.0f s left", name, done, cycle.steps, loss, spent_s, left_s)

    def _step(self, optimizers: list[torch.optim.Optimizer], batches: list[Batch]) -> list[float]:
        losses = []
        device = next(self.model.parameters()).device
        for batch in batches:
            moved = batch.to(device)
            logits, balance = _forward(self.model, moved)
            loss = F.cross_entropy(logits, moved.wanted) + 0.01 * balance
            loss.backward()
            losses.append(loss.item())
        nn.utils.clip_grad_norm_([value for value in self.model.parameters() if value.requires_grad], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return losses


def _mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def _set_rates(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group.setdefault("full_lr", group["lr"])


@torch.no_grad()
def score(model: DemoModel, encoder: Encoder, pool: PicturePool | None, count: int = 40) -> dict[str, int]:
    """Return per cent of held-out conversations whose every learnt token is the most likely one."""
    device = next(model.parameters()).device
    result = {}
    for skill, build in BUILDERS.items():
        if pool is None and skill in ("picture", "two_pictures", "which"):
            continue
        rng = random.Random(7)
        right = 0
        for _ in range(count):
            conversation: Conversation = build(rng, held_out=True)
            sample = encoder.encode(conversation, pool.draw(conversation, 280) if pool else None)
            length = next(length for length in (192, 512, 1280) if len(sample.ids) <= length)
            batch = pack([[sample]], length).to(device)
            logits, _ = _forward(model, batch)
            right += bool((logits.argmax(-1) == batch.wanted).all())
        result[skill] = round(100 * right / count)
    return result


def save(model: DemoModel, encoder_path: Path, out: Path) -> None:
    """Write the Hugging Face layout: weights, configuration, tokenizer, generation and image settings."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name.replace("._orig_mod", ""): value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(encoder_path))
    config = hf_config(model.config, tokenizer.get_vocab())
    generation = {"do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95, "bos_token_id": config["text_config"]["bos_token_id"], "pad_token_id": 0, "eos_token_id": config["eos_token_id"]}
    processor = {"image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 280, "patch_size": 16, "pooling_kernel_size": 3, "image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}, "image_seq_length": 280, "processor_class": "Gemma4Processor"}
    for name, content in (("config.json", config), ("generation_config.json", generation), ("processor_config.json", processor)):
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / "tokenizer.json").write_bytes(encoder_path.read_bytes())


def _load_vision(model: DemoModel, out: Path) -> PicturePool:
    """Load tower and projector and the encoded pictures, which both checkpoints share; wait for who makes them."""
    while not (out / _PICTURES_FILE).exists():
        time.sleep(1)
    device = next(model.parameters()).device
    saved = torch.load(out / _VISION_FILE, map_location=device, weights_only=True)
    model.model.vision_tower.load_state_dict(saved["tower"])
    model.model.embed_vision.load_state_dict(saved["projector"])
    return PicturePool.load(out / _PICTURES_FILE)


def _make_vision(out: Path, seed: int, device: torch.device) -> None:
    """Train the tower and encode the pictures of the text stage; what lies in the folder already is kept."""
    if (out / _PICTURES_FILE).exists():
        return
    torch.manual_seed(seed)
    model = DemoModel(CONFIGS["demo-moe"]).to(device)
    colour, shape = train_vision(model, seed, device)
    log.info("vision: colour %.2f, shape %.2f on held-out pictures", colour, shape)
    torch.save({"tower": model.model.vision_tower.state_dict(), "projector": model.model.embed_vision.state_dict()}, out / _VISION_FILE)
    unfinished = out / f"{_PICTURES_FILE}.part"
    make_pool(model, seed + 2, device).save(unfinished)
    unfinished.rename(out / _PICTURES_FILE)


def _make_text(name: str, out: Path, seed: int, device: torch.device) -> None:
    """Train one checkpoint."""
    torch.manual_seed(seed)
    model = DemoModel(CONFIGS[name]).to(device)
    encoder = Encoder(Tokenizer.from_file(str(out / "tokenizer.json")))
    Trainer(model, encoder, partial(_load_vision, model, out), seed + 3, out / name).train(RECIPES[name])


def _side_by_side(options: argparse.Namespace) -> None:
    """Run two processes of one thread each: the mixture, and the tower followed by the dense checkpoint.

    Raises:
        SystemExit: One of them failed; the other is stopped.
    """
    command = [sys.executable, "-m", "demo.train", "--out", str(options.out), "--seed", str(options.seed), "--device", options.device, "--threads", "1"]
    running = [subprocess.Popen([*command, "--only", *names]) for names in (["demo-moe"], ["vision", "demo-dense"])]  # noqa: S603
    try:
        while any(process.poll() is None for process in running):
            if any(process.poll() for process in running):
                break
            time.sleep(0.5)
    finally:
        for process in running:
            process.terminate()
    if failed := [process for process in running if process.wait()]:
        raise SystemExit(failed[0].returncode)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=("vision", *CONFIGS), help="run these stages only, in this process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads; 2 and more on a CPU train both checkpoints side by side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    """Run all stages; a finished vision stage whose results lie in the output folder is not repeated."""
    options = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if not (tokenizer_path := out / "tokenizer.json").exists():
        write_tokenizer(tokenizer_path, options.seed)
    if options.only is None and options.device == "cpu" and options.threads > 1:
        _side_by_side(options)
        return
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    for stage in options.only or ("vision", *CONFIGS):
        if stage == "vision":
            _make_vision(out, options.seed, device)
        else:
            _make_text(stage, out, options.seed, device)


if __name__ == "__main__":
    main()
