"""The text stage: cycles of steps on streams of conversations, alone or together with other processes."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from demo.conversation import Conversation
from demo.conversations import BUILDERS
from demo.data import LIKE_REQUESTS, Encoder, PicturePool, Stream
from demo.model import DemoModel
from demo.model_config import hf_config
from demo.optimizers import make_optimizers, set_rates
from demo.packing import Batch, Sample, pack
from demo.recipes import Course, Cycle
from demo.text_model import soft_cap
from demo.workers import Workers

log = logging.getLogger(__name__)
_SHARES: Final = 2
"""The conversations of a step come in as many parts, so that two processes do what one would."""
_LOOKING: Final = 0.5
"""What ``missed_looks`` counts beside the loss of one kind of conversations."""


def _deal(model: DemoModel, count: int) -> list[list[nn.Parameter]]:
    """Deal the matrices inside the layers out to ``count`` processes, each of which moves its own."""
    layers = model.model.language_model.layers
    return [[value for layer in layers[rank::count] for value in layer.parameters() if value.ndim == 2] for rank in range(count)]


def _optimizers(model: DemoModel, cycle: Cycle, matrices: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Give Muon ``matrices`` of the layers and AdamW all that is none; the vision tower stays as it is."""
    named = [*model.model.language_model.named_parameters(), *model.model.embed_vision.named_parameters()]
    others = [value for name, value in named if not (value.ndim == 2 and "layers" in name)]
    return make_optimizers(matrices, others, cycle.matrix_rate, cycle.other_rate)


def _forward(model: DemoModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, before the soft cap, at the learnt places, the balance loss of each kind, and how much was not looked at."""
    language = model.model.language_model
    x = language.embed(batch.ids)
    if batch.soft_features is not None:
        soft = model.model.embed_vision(batch.soft_features)
        x = x.index_copy(0, batch.soft_places, soft.to(x.dtype))
    with torch.autocast(x.device.type, torch.bfloat16, enabled=_has_bfloat16(x.device)):
        hidden, balance, missed = language(x, batch)
    return language.raw_logits(hidden.float()), balance, missed


def _token_losses(logits: Tensor, wanted: Tensor, cap: float) -> Tensor:
    return F.cross_entropy(soft_cap(logits, cap), wanted, reduction="none")


@lru_cache
def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 products are fast here; where they are emulated they are slower than float32."""
    if device.type == "cuda":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii")


def _can_compile() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415

    try:
        get_cpp_compiler()
    except Exception as error:  # noqa: BLE001
        log.warning("no C++ compiler (%s): layers run uncompiled", type(error).__name__)
        return False
    return True


def _rate(step: int, cycle: Cycle) -> float:
    warm = min(1.0, (step + 1) / 60)
    left = (cycle.steps - step) / (cycle.steps * (1 - cycle.hold))
    return warm * min(1.0, max(left, 0.0))


@dataclass
class Trainer:
    """The text stage of one checkpoint."""

    model: DemoModel
    encoder: Encoder
    load_vision: Callable[[], PicturePool]
    """Puts the pretrained tower and projector into the model and returns the encoded pictures; called when they are needed first."""
    seed: int
    out: Path
    workers: Workers
    pool: PicturePool | None = None
    _losses: Callable[[Tensor, Tensor, float], Tensor] = field(default_factory=lambda: _token_losses, init=False)
    _missed: float = field(default=0.0, init=False)
    """What ``missed_looks`` was last."""

    def train(self, cycles: Sequence[Cycle]) -> None:
        """Train the language model and the projector; at the end of each cycle the held-out score is logged."""
        self.model.model.vision_tower.requires_grad_(requires_grad=False)
        if _can_compile():
            torch.compiler.reset()
            self._losses = torch.compile(_token_losses, dynamic=True)
            for layer in self.model.model.language_model.layers:
                layer.compile(dynamic=True)
        for number, cycle in enumerate(cycles):
            if self.workers.is_first or not cycle.words_only:
                self._run(cycle, self.seed + 10 * number)
            if cycle.words_only:
                self.workers.copy_from_first(self.model)
                self.pool = self.load_vision()
            if self.workers.is_first:
                save(self.model, self.out.parent / "tokenizer.json", self.out)
            found = self.score([skill for skill in BUILDERS if any(skill in diet.shares for diet in cycle.courses[-1].diets)])
            if self.workers.is_first:
                log.info("%s: held out: %s", self.model.config.name, found)

    def _run(self, cycle: Cycle, seed: int) -> None:
        """Run one cycle; the weights are saved every thousand steps, so that nobody has to wait for the end to try them."""
        workers = Workers() if cycle.words_only else self.workers
        shares = 1 if cycle.words_only else _SHARES
        dealt = _deal(self.model, workers.count)
        optimizers = _optimizers(self.model, cycle, dealt[workers.rank])
        began = time.monotonic()
        losses: list[float] = []
        for step, parts in enumerate(self._parts(cycle, seed, workers.own(shares), shares)):
            set_rates(optimizers, _rate(step, cycle))
            losses += self._add_gradients(parts, shares)
            self._move(optimizers, dealt, workers)
            done = step + 1
            if done % 50 == 0 and self.workers.is_first:
                self._log(done, cycle, losses[-125:], time.monotonic() - began)
            if done % 1000 == 0 and self.workers.is_first:
                save(self.model, self.out.parent / "tokenizer.json", self.out)

    def _parts(self, cycle: Cycle, seed: int, own: Sequence[int], shares: int) -> Iterator[list[list[list[Sample]]]]:
        """Yield for every step of a cycle the samples of each kind in each of this process's ``own`` of ``shares`` parts."""
        for number, course in enumerate(cycle.courses):
            streams = [self._streams(course, seed + 100 * number + 1000 * share, shares) for share in own]
            for _ in range(course.steps):
                yield [[next(stream) for stream in kinds] for kinds in streams]

    def _streams(self, course: Course, seed: int, shares: int) -> list[Iterator[list[Sample]]]:
        return [
            iter(Stream(self.encoder, diet.shares, diet.places // shares, diet.longest, seed + number, self.pool if diet.pictures else None, diet.picture_sizes, diet.known_pictures))
            for number, diet in enumerate(course.diets)
        ]

    def _log(self, done: int, cycle: Cycle, losses: list[float], spent_s: float) -> None:
        left_s = spent_s / done * (cycle.steps - done)
        loss = sum(losses) / len(losses)
        name = self.model.config.name
        log.info("%s: step %d of %d, loss %.4f, missed %.3f, %.0f s, about %.0f s left", name, done, cycle.steps, loss, self._missed, spent_s, left_s)

    def _add_gradients(self, parts: list[list[list[Sample]]], shares: int) -> list[float]:
        """Add those of this process's parts of ``shares`` in all; every kind of conversations counts the same.

        Returns:
            The loss of each kind of each part.
        """
        device = next(self.model.parameters()).device
        found: list[float] = []
        for kinds in parts:
            batch = pack(kinds).to(device)
            logits, balance, missed = _forward(self.model, batch)
            each = self._losses(logits, batch.wanted, self.model.config.softcap).split(batch.counts)
            losses = torch.stack([part.mean() for part in each]) + 0.01 * balance
            ((losses.sum() + _LOOKING * missed) / shares).backward()
            self._missed = float(missed.detach())
            found += losses.tolist()
        return found

    def _move(self, optimizers: list[torch.optim.Optimizer], dealt: list[list[nn.Parameter]], workers: Workers) -> None:
        """Move the weights along the gradients of all ``workers`` and forget these."""
        parameters = [value for value in self.model.parameters() if value.requires_grad]
        workers.sum_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        workers.exchange(dealt)
        self.model.zero_grad()

    @torch.no_grad()
    @torch.compiler.set_stance("force_eager")
    def score(self, skills: Sequence[str], count: int = 20) -> dict[str, int]:
        """Return per cent of held-out conversations whose every learnt token is the most likely one."""
        parts = self.workers.gather({skill: self._score(skill, count) for skill in skills[self.workers.rank :: self.workers.count]})
        known = {skill: found for part in parts for skill, found in part.items()}
        return {skill: known[skill] for skill in skills}

    def _score(self, skill: str, count: int) -> int:
        rng = random.Random(7)
        conversations: list[Conversation] = [BUILDERS[skill](rng, held_out=True) for _ in range(count)]
        samples = [self.encoder.encode(each, self.pool.draw(each, LIKE_REQUESTS) if self.pool else None) for each in conversations]
        batch = pack([[sample] for sample in samples]).to(next(self.model.parameters()).device)
        logits, *_ = _forward(self.model, batch)
        right = [bool(part.all()) for part in (logits.argmax(-1) == batch.wanted).split(batch.counts)]
        return round(100 * sum(right) / count)


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
