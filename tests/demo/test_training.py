"""The training computes what plain formulas say, and two processes train as one does.

PyTorch lives in the environment of ``make demo-train`` only; docs/demo.md says how to run these tests with it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from demo import trainer, vision  # noqa: E402
from demo.conversation import Conversation  # noqa: E402
from demo.conversations import BUILDERS  # noqa: E402
from demo.data import Encoder, PicturePool  # noqa: E402
from demo.kernels import Attend, Mix  # noqa: E402
from demo.lexicon import COLORS, SHAPES  # noqa: E402
from demo.model import DemoModel  # noqa: E402
from demo.model_config import CONFIGS  # noqa: E402
from demo.packing import Look, Sample, pack  # noqa: E402
from demo.pictures import Picture  # noqa: E402
from demo.recipes import Course, Cycle, Diet  # noqa: E402
from demo.text_model import missed_looks, rotate, text_rope  # noqa: E402
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
        together, *_ = trainer._forward(model, pack([samples[:2], samples[2:]]))
        alone = [trainer._forward(model, pack([[sample]]))[0] for sample in samples]

    # Products in bfloat16 are added up in another order for another number of places.
    assert (together - torch.cat(alone)).abs().max() < 0.15


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Tokenizer.from_file(str(TOKENIZER)))


@pytest.mark.parametrize("skill", ["list", "tool_names", "tool", "choice", "pair"])
@pytest.mark.parametrize("seed", range(8))
def test_a_name_is_looked_up_where_it_was_given(skill: str, seed: int, encoder: Encoder) -> None:
    """Before every name that is learnt, the look is at the end of the same name in the list or in its declaration."""
    conversation = BUILDERS[skill](random.Random(seed))
    names = [*conversation.names, *(tool.name for tool in conversation.tools)]
    sample = encoder.encode(conversation)
    tokenizer = Tokenizer.from_file(str(TOKENIZER))

    ids = sample.ids.tolist()
    for place, start, stop in sample.looks:
        assert start < stop <= place
        assert sample.learnt[place + 1]
        written = tokenizer.decode(ids[place + 1 :], skip_special_tokens=False)
        name = max((name for name in names if written.startswith(name)), key=len)
        before = tokenizer.decode(ids[:start], skip_special_tokens=False)
        given = tokenizer.decode(ids[:stop], skip_special_tokens=False)
        assert given.endswith(name)
        assert not before.endswith(name)
        assert name not in before
    if not conversation.thinking:
        answers = [message for message in conversation.messages if message["role"] == "assistant"]
        calls = sum(len(message.get("tool_calls", ())) for message in answers)
        assert len(sample.looks) == (len(answers) if skill in ("list", "tool_names") else calls)


def test_a_name_that_begins_another_one_is_not_looked_up_there(encoder: Encoder) -> None:
    """``find`` is not the beginning of ``find_map``, though that comes first."""
    messages = [
        {"role": "user", "content": "Names: find_map, find. Which one is it?"},
        {"role": "assistant", "content": "find"},
    ]
    conversation = Conversation("list", messages, names=["find", "find_map"])
    sample = encoder.encode(conversation)

    [(_, _, stop)] = sample.looks
    given = Tokenizer.from_file(str(TOKENIZER)).decode(sample.ids[:stop].tolist(), skip_special_tokens=False)
    assert given.endswith("Names: find_map, find")


@pytest.mark.parametrize("begun", ["", "Ann Tri", "Ann Trilwulo has"])
def test_a_thing_is_looked_up_where_it_was_said_to_be_somebodys(begun: str, encoder: Encoder) -> None:
    """Before both of its words, also where the answer was begun; what the other one has is not looked at."""
    answer = "Ann Trilwulo has a silver forest."
    messages = [
        {
            "role": "user",
            "content": "Ann Trilwulo has a silver forest. Bob has a big shop. What does Ann Trilwulo have?",
        },
        {"role": "assistant", "content": answer},
    ]
    sample = encoder.encode(Conversation("chat", messages, cuts={1: len(begun)}))
    tokenizer = Tokenizer.from_file(str(TOKENIZER))

    [(place, start, stop)] = sample.looks
    assert sample.learnt[place + 1]
    assert tokenizer.decode(sample.ids[place + 1 :].tolist()).strip() == "silver forest."
    assert tokenizer.decode(sample.ids[start:stop].tolist()).strip() == "silver forest"


def test_training_moves_the_head_that_looks(tmp_path: Path, encoder: Encoder) -> None:
    """With looks the first head of the fourth layer gets another gradient than from right answers alone."""
    sample = encoder.encode(BUILDERS["list"](random.Random(1)))
    assert sample.looks

    def gradient(of: Sample) -> Any:
        torch.manual_seed(5)
        text = trainer.Trainer(DemoModel(CONFIGS["demo-moe"]), encoder, _pool, 3, tmp_path, Workers())
        text._add_gradients([[[of]]], 1)
        grad = text.model.model.language_model.layers[3].self_attn.q_proj.weight.grad
        return grad.clone()

    with_looks, without = gradient(sample), gradient(replace(sample, looks=()))
    assert torch.equal(without, gradient(replace(sample, looks=())))
    assert (with_looks[:32] - without[:32]).abs().max() > 10 * (with_looks[32:] - without[32:]).abs().max()
    assert (with_looks[:32] - without[:32]).norm() > 0.1 * without[:32].norm()


@pytest.mark.parametrize("seed", range(20))
def test_what_a_picture_shows_is_looked_up_in_that_picture(seed: int, encoder: Encoder) -> None:
    """A colour or a shape is looked up in the one picture that has it, and the first or the second one in itself."""
    conversation = BUILDERS["two_pictures"](random.Random(seed))
    first, second = conversation.pictures
    sample = encoder.encode(conversation, {0: torch.zeros(30, 64), 1: torch.zeros(40, 64)})
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    blocks = {0: np.flatnonzero(sample.blocks == 1), 1: np.flatnonzero(sample.blocks == 2)}

    assert sample.looks
    for place, start, stop in sample.looks:
        [word] = re.findall(r"^ ?(\w+)", tokenizer.decode(sample.ids[place + 1 :].tolist(), skip_special_tokens=False))
        [index] = [number for number, block in blocks.items() if (block[0], block[-1] + 1) == (start, stop)]
        shown = (first, second)[index]
        assert word in (shown.color, shown.shape, ("first", "second")[index])


def test_what_is_missed_is_the_attention_that_does_not_go_there() -> None:
    """The loss is that of plain attention of the first head, sample by sample."""
    torch.manual_seed(0)
    language = DemoModel(CONFIGS["demo-moe"]).model.language_model
    attention = language.layers[3].self_attn
    rng = random.Random(0)
    samples = [_sample(rng, length) for length in (40, 7, 130)]
    samples[0] = replace(samples[0], looks=(Look(20, 3, 4), Look(39, 10, 30)))
    samples[2] = replace(samples[2], looks=(Look(100, 0, 50),))
    batch = pack([samples[:2], samples[2:]])
    x = torch.randn(len(batch.ids), 128)
    rope = text_rope(language.config, batch.positions, is_global=False)

    missed = missed_looks(attention, x, rope, batch.looks)

    query = rotate(attention.q_norm(attention.q_proj(x).unflatten(-1, (-1, 32))), *rope)[:, 0]
    key = rotate(attention.k_norm(attention.k_proj(x).unflatten(-1, (-1, 32))), *rope)[:, 0]
    found, start = [], 0
    for sample in samples:
        for place, begin, end in sample.looks:
            weights = (key[start : start + place + 1] @ query[start + place]).softmax(0)
            found.append(-weights[begin:end].sum().log())
        start += len(sample.ids)
    assert len(found) == 3
    assert torch.allclose(missed, torch.stack(found).mean(), atol=1e-4)


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


def test_all_of_the_tower_learns_to_tell_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight is left out, and two hundred small pictures are enough to tell colours far better than by chance."""
    monkeypatch.setattr(vision, "PHASES", (vision.Phase(25, 8, (9,)),))
    torch.manual_seed(0)
    model = DemoModel(CONFIGS["demo-moe"])
    tower, projector = model.model.vision_tower, model.model.embed_vision
    before = {name: value.clone() for part in (tower, projector) for name, value in part.named_parameters()}

    colour, _ = vision.train_vision(model, 0, torch.device("cpu"), held_out=20)

    now = {name: value for part in (tower, projector) for name, value in part.named_parameters()}
    assert [name for name in now if torch.equal(now[name], before[name])] == []
    assert colour > 0.4


def _pool() -> PicturePool:
    """Return made-up features for every kind of picture."""
    pool = PicturePool()
    generator = torch.Generator().manual_seed(1)
    for color in COLORS:
        for shape in SHAPES:
            pool.add(Picture(color, shape, 0), torch.randn(25, 64, generator=generator))
    return pool


def _train(rank: int, count: int, folder: Path) -> None:
    """Take three steps of two courses as one of ``count`` processes."""
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
    text.train([Cycle((Course(2, (words, pictures)), Course(1, (words,))), 0.006, 0.003, 0.5)])
    workers.leave()


def test_courses_follow_each_other(tmp_path: Path, encoder: Encoder) -> None:
    """Each has its number of steps and its own conversations; the rates fall once over all of them."""
    words = Diet({"chat": 1.0}, 400, 192)
    pictures = Diet({"picture": 1.0}, 400, 200, pictures=True, picture_sizes=((1, 25),))
    cycle = Cycle((Course(2, (words,)), Course(3, (words, pictures))), 0.006, 0.003, 0.5)
    text = trainer.Trainer(DemoModel(CONFIGS["demo-moe"]), encoder, _pool, 3, tmp_path, Workers(), _pool())
    steps = list(text._parts(cycle, 3, range(2), 2))

    shown = [[[any(sample.pictures for sample in kind) for kind in kinds] for kinds in parts] for parts in steps]
    assert shown == [[[False]] * 2] * 2 + [[[False, True]] * 2] * 3
    assert cycle.steps == len(steps)
    rates = [trainer._rate(step, cycle) / min(1.0, (step + 1) / 60) for step in range(cycle.steps)]
    assert rates == pytest.approx([1, 1, 1, 0.8, 0.4])


@pytest.fixture
def train(tmp_path: Path) -> Callable[[int], dict[str, Any]]:
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
