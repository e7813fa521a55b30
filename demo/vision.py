"""First stage of the training: the vision tower learns to tell colours and shapes, before any language.

The tower is then frozen. Trained together with the text model at its learning rate it forgets what shapes are.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo.data import PicturePool
from demo.lexicon import COLORS, SHAPES
from demo.model import DemoModel
from demo.optimizers import make_optimizers, set_rates
from demo.pictures import Picture, draw, fit, make_picture, make_size
from demo.workers import Workers

log = logging.getLogger(__name__)
_COLORS: Final = list(COLORS)


@dataclass(frozen=True)
class Phase:
    """Some steps at some sizes: ``budgets`` of soft tokens, one drawn per batch."""

    steps: int
    batch: int
    budgets: tuple[int, ...]
    colored: bool = True
    """False draws black on white, so that shapes are all there is to see."""


# Small pictures first: a fresh tower that starts on full-sized ones hardly learns shapes at all.
PHASES: Final = (Phase(300, 32, (9,), colored=False), Phase(220, 32, (9,)), Phase(270, 32, (16, 25)), Phase(260, 16, (70,)), Phase(230, 12, (70, 140, 280, 280)))
RATES: Final = (0.006, 0.003)
"""Of the matrices of the layers and of all else, before they fall."""
POOL: Final = (((25, 36), (70, 36), (280, 24)), ((25, 18), (70, 18), (280, 16)))
"""Sets of the pictures kept for the text stage: budgets, and how many of each colour and shape. The second set is for later courses."""


def pixels(picture: Picture, budget: int, size: tuple[int, int] | None = None) -> Tensor:
    """Draw and resize a picture: [height, width, 3] in 0..1."""
    return torch.from_numpy(np.asarray(fit(draw(picture, size), budget), np.float32) / 255)


def _batches(rng: random.Random) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for phase in PHASES:
        for _ in range(phase.steps):
            size = make_size(rng)
            budget = rng.choice(phase.budgets)
            pictures = [make_picture(rng) for _ in range(max(4, phase.batch * 140 // max(budget, 140)) if budget > 140 else phase.batch)]
            colors = torch.tensor([_COLORS.index(picture.color) for picture in pictures])
            if not phase.colored:
                pictures = [Picture("black", picture.shape, picture.seed) for picture in pictures]
                colors = colors * 0 + _COLORS.index("black")
            shapes = torch.tensor([SHAPES.index(picture.shape) for picture in pictures])
            yield torch.stack([pixels(picture, budget, size) for picture in pictures]), colors, shapes


def train_vision(model: DemoModel, seed: int, device: torch.device, held_out: int = 100) -> tuple[float, float]:
    """Train tower and projector with a linear read-out of the mean soft token, later of each one.

    Returns:
        Shares of ``held_out`` pictures at the default budget whose colour and whose shape the read-out tells.
    """
    tower, projector = model.model.vision_tower, model.model.embed_vision
    heads = nn.ModuleList((nn.Linear(model.config.hidden, len(COLORS)), nn.Linear(model.config.hidden, len(SHAPES)))).to(device)
    parameters = [*tower.parameters(), *projector.parameters(), *heads.parameters()]
    matrices = {value for value in tower.encoder.parameters() if value.ndim == 2}
    optimizers = make_optimizers([value for value in parameters if value in matrices], [value for value in parameters if value not in matrices], *RATES)
    total = sum(phase.steps for phase in PHASES)
    rights: list[tuple[float, float]] = []
    for step, (images, colors, shapes) in enumerate(_batches(random.Random(seed))):
        set_rates(optimizers, min(1, (step + 1) / 50) * min(1.0, max(0.02, (total - step) / (0.5 * total))))
        soft = model.soft_tokens(images.to(device))
        color, shape = (head(soft.mean(1)) for head in heads)
        loss = F.cross_entropy(color, colors.to(device)) + F.cross_entropy(shape, shapes.to(device))
        if step > total // 4:  # from then on every soft token, also one of the background, says what the picture shows
            for head, wanted in zip(heads, (colors, shapes), strict=True):
                each = head(soft).flatten(0, 1)
                loss = loss + 0.5 * F.cross_entropy(each, wanted.to(device).repeat_interleave(soft.shape[1]))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        rights.append(((color.argmax(-1).cpu() == colors).float().mean().item(), (shape.argmax(-1).cpu() == shapes).float().mean().item()))
        if step % 50 == 49:
            recent = torch.tensor(rights[-50:]).mean(0)
            log.info("vision: step %d of %d, colour %.2f, shape %.2f", step + 1, total, recent[0], recent[1])
    return _probe(model, heads, seed + 1, held_out, device)


@torch.no_grad()
def _probe(model: DemoModel, heads: nn.ModuleList, seed: int, count: int, device: torch.device) -> tuple[float, float]:
    rng = random.Random(seed)
    right = torch.zeros(2)
    for _ in range(count):
        picture = make_picture(rng)
        mean = model.soft_tokens(pixels(picture, 280)[None].to(device)).mean(1)
        color, shape = (head(mean).argmax().item() for head in heads)
        right += torch.tensor([float(_COLORS[color] == picture.color), float(SHAPES[shape] == picture.shape)])
    return right[0].item() / count, right[1].item() / count


def _pool_pictures(seed: int) -> Iterator[tuple[Picture, int]]:
    """Yield the pictures of the text stage and the budget of each."""
    rng = random.Random(seed)
    for counts, color, shape in itertools.product(POOL, COLORS, SHAPES):
        budgets = [budget for budget, count in counts for _ in range(count)]
        rng.shuffle(budgets)
        yield from ((Picture(color, shape, rng.getrandbits(32)), budget) for budget in budgets)


@torch.no_grad()
def make_pool(model: DemoModel, seed: int, device: torch.device, workers: Workers) -> PicturePool:
    """Encode the pictures of the text stage once, since the tower no longer changes; each process takes its share."""
    pictures = list(_pool_pictures(seed))
    own = [model.model.vision_tower(pixels(picture, budget)[None].to(device))[0] for picture, budget in pictures[workers.rank :: workers.count]]
    parts = workers.gather(own)
    pool = PicturePool()
    for number, (picture, _) in enumerate(pictures):
        pool.add(picture, parts[number % workers.count][number // workers.count])
    return pool
