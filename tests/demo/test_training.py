"""The training computes what plain formulas say, and two processes train as one does.

PyTorch lives in the environment of ``make demo-train`` only; docs/demo.md says how to run these tests with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from demo import trainer  # noqa: E402
from demo.data import Encoder, PicturePool  # noqa: E402
from demo.kernels import Attend, Mix  # noqa: E402
from demo.lexicon import COLORS, SHAPES  # noqa: E402
from demo.model import DemoModel  # noqa: E402
from demo.model_config import CONFIGS  # noqa: E402
from demo.packing import Sample, pack  # noqa: E402
from demo.pictures import Picture  # noqa: E402
from demo.recipes import Cycle, Diet  # noqa: E402
from demo.workers import Workers  # noqa: E402

TOKENIZER = Path("demo/checkpoints/demo-moe/tokenizer.json")


def _sample(rng: random.Random, length: int) -> Sample:
    """Make a sample whose middle third is a picture, if it is long enough."""
    blocks = np.zeros(length, np.int8)
    if length > 30:
        blocks[length // 3 : 2 * length // 3] = 1
    learnt = np.array([False, *(rng.random() < 0.3 for _ in range(length - 1))])
    pictures = (torch.zeros(int(blocks.sum()), 64),) if blocks.any() else ()
    return Sample(np.array([rng.randrange(2048) for _ in range(length)], np.int32), learnt, blocks, pictures)


def _plain_attention(parts: Sequence[Any], samples: Sequence[Sample], *, is_global: bool) -> Any:
    """Attend sample by sample with a mask of all pairs."""
    outs, start = [], 0
    for sample in samples:
        stop = start + len(sample.ids)
        query, key, value = (part[start:stop].transpose(0, 1) for part in parts)
        block = torch.from_numpy(sample.blocks)
        seen = torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
        if not is_global:
            seen = seen | ((block[:, None] == block) & (block > 0))
        key, value = (part.repeat_interleave(len(query) // len(part), 0) for part in (key, value))
        outs.append(F.scaled_dot_product_attention(query, key, value, seen, scale=1.0).transpose(0, 1).flatten(1))
        start = stop
    return torch.cat(outs)


def _compare(ours: Any, plain: Any, inputs: Sequence[Any]) -> None:
    """Demand the same results and the same gradients of a random sum of them."""
    assert torch.allclose(ours, plain, atol=1e-4, rtol=1e-4)
    weights = torch.randn(plain.shape)
    grads = [torch.autograd.grad((result * weights).sum(), inputs) for result in (ours, plain)]
    for mine, wanted in zip(*grads, strict=True):
        assert torch.allclose(mine, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_global", [False, True])
def test_attention_in_groups_is_attention(seed: int, is_global: bool) -> None:
    """Groups, parts and padding change neither the result nor its gradients."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    samples = [_sample(rng, rng.choice((3, 20, 31, 32, 33, 100, 250, 500))) for _ in range(9)]
    layout = pack([samples[:4], samples[4:]]).layout
    places = len(layout.order)
    real = sum(len(sample.ids) for sample in samples)
    inputs = [torch.randn(places, heads, 16, requires_grad=True) for heads in (4, 2, 2)]

    ours = Attend.apply(*inputs, layout, is_global)[:real]

    _compare(ours, _plain_attention(inputs, samples, is_global=is_global), inputs)


@pytest.mark.parametrize("seed", range(4))
def test_experts_on_their_places_are_a_weighted_sum_of_all(seed: int) -> None:
    """Computing an expert only where it was chosen changes neither the result nor its gradients."""
    torch.manual_seed(seed)
    x = torch.randn(77, 24, requires_grad=True)
    gate_up = torch.randn(5, 16, 24, requires_grad=True)
    down = torch.randn(5, 24, 8, requires_grad=True)
    weights = torch.rand(77, 2, requires_grad=True)
    index = torch.stack([torch.randperm(4)[:2] for _ in range(77)])  # nobody chooses the last one

    gate, up = torch.einsum("ph,eih->pei", x, gate_up).chunk(2, dim=-1)
    each = torch.einsum("pei,ehi->peh", F.gelu(gate, approximate="tanh") * up, down)
    plain = (each.gather(1, index[..., None].expand(-1, -1, 24)) * weights[..., None]).sum(1)

    _compare(Mix.apply(x, gate_up, down, index, weights), plain, [x, gate_up, down, weights])


def test_a_batch_gives_each_sample_what_it_gives_it_alone() -> None:
    """No sample sees another, and padding reaches none."""
    torch.manual_seed(0)
    model = DemoModel(CONFIGS["demo-moe"])
    rng = random.Random(0)
    samples = [_sample(rng, length) for length in (40, 7, 130, 40, 300)]

    with torch.no_grad():
        together, _ = trainer._forward(model, pack([samples[:2], samples[2:]]))
        alone = [trainer._forward(model, pack([[sample]]))[0] for sample in samples]

    # Products in bfloat16 are added up in another order for another number of places.
    assert (together - torch.cat(alone)).abs().max() < 0.15


def test_the_dense_model_starts_as_the_mixture_without_experts() -> None:
    """What both shapes have is taken over, and the wider MLP first does what the shared one did."""
    torch.manual_seed(0)
    mixture, dense = (DemoModel(CONFIGS[name]) for name in ("demo-moe", "demo-dense"))
    dense.inherit(mixture.state_dict())

    ours, theirs = (model.model.language_model.layers[0] for model in (dense, mixture))
    x = torch.randn(5, 128)
    shared = theirs.post_feedforward_layernorm_1(theirs.mlp(x))
    loud, wanted = ours.post_feedforward_layernorm(ours.mlp(x)), theirs.post_feedforward_layernorm(shared)
    assert torch.allclose(loud, wanted, atol=1e-4)
    projectors = [model.model.embed_vision.embedding_projection.weight for model in (dense, mixture)]
    assert torch.equal(*projectors)


def _pool() -> PicturePool:
    """Return made-up features for every kind of picture."""
    pool = PicturePool()
    generator = torch.Generator().manual_seed(1)
    for color in COLORS:
        for shape in SHAPES:
            pool.add(Picture(color, shape, 0), torch.randn(25, 64, generator=generator))
    return pool


def _alone(folder: Path) -> trainer.Trainer:
    """Return the trainer of an untrained mixture in one process."""
    torch.manual_seed(5)
    (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    encoder = Encoder(Tokenizer.from_file(str(TOKENIZER)))
    return trainer.Trainer(DemoModel(CONFIGS["demo-moe"]), encoder, _pool, 3, folder / "demo-moe", Workers(), _pool())


def _train(rank: int, count: int, folder: Path) -> None:
    """Take two steps as one of ``count`` processes."""
    torch.set_num_threads(1)
    trainer._can_compile = lambda: False
    (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    torch.manual_seed(5)
    workers = Workers.join(rank, count, folder / "meeting")
    encoder = Encoder(Tokenizer.from_file(str(TOKENIZER)))
    words = Diet({"chat": 0.5, "form": 0.5}, 400, 192)
    pictures = Diet({"picture": 0.5, "two_pictures": 0.5}, 400, 200, pictures=True, picture_sizes=((1, 25),))
    text = trainer.Trainer(DemoModel(CONFIGS["demo-moe"]), encoder, _pool, 3, folder / "demo-moe", workers, _pool())
    text.score = dict.fromkeys  # it takes longer than the steps
    text.train([Cycle(2, (words, pictures), 0.006, 0.003, 0.5)])
    workers.leave()


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Callable[[int], dict[str, Any]]]:
    """Return a function that trains in so many processes and returns the weights."""

    def run(count: int) -> dict[str, Any]:
        folder = tmp_path / str(count)
        folder.mkdir()
        torch.multiprocessing.spawn(_train, (count, folder), nprocs=count)
        state: dict[str, Any] = load_file(folder / "demo-moe" / "model.safetensors")
        return state

    return run


def test_two_processes_train_as_one_does(train: Callable[[int], dict[str, Any]]) -> None:
    """The weights are the same to the last bit, and they have moved."""
    one, two = train(1), train(2)

    assert all(torch.equal(value, two[name]) for name, value in one.items())
    torch.manual_seed(5)
    fresh = DemoModel(CONFIGS["demo-moe"]).state_dict()
    name = "model.language_model.embed_tokens.weight"
    assert not torch.equal(one[name], fresh[name])


@pytest.mark.parametrize(("found", "runs"), [([50], 1), ([0, 20], 2), ([0, 0, 0], 3)])
def test_a_cycle_that_missed_its_goal_begins_again(
    found: list[int], runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every try starts from the same weights with other conversations, and the last one is kept however it went."""
    monkeypatch.setattr(trainer, "_can_compile", lambda: False)
    text = _alone(tmp_path)
    seen: list[tuple[int, float]] = []
    weight = text.model.model.language_model.embed_tokens.weight

    def run(cycle: Cycle, seed: int) -> None:
        del cycle
        seen.append((seed, weight[0, 0].item()))
        weight.data.add_(1)

    scores = iter(found)
    monkeypatch.setattr(text, "_run", run)
    monkeypatch.setattr(text, "score", lambda skills: {skill: next(scores, 0) for skill in skills})
    begin = weight[0, 0].item()
    text.train([Cycle(1, (Diet({"list": 1.0}, 400, 192),), 0.006, 0.003, 0.5, wanted=("list", 20), tries=3)])

    assert [value for _, value in seen] == [begin] * runs
    assert len({seed for seed, _ in seen}) == runs
    assert weight[0, 0].item() == pytest.approx(begin + 1)
