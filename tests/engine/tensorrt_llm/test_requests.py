"""What the library is asked: every field of a request in its terms, pictures included, and what is refused by name."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from engine.core import Image, Sampling
from engine.errors import (
    ContextOverflowError,
    EngineError,
    InvalidGrammarError,
    InvalidImageError,
    InvalidRequestError,
)

NEUTRAL = Sampling(top_k=0, top_p=1.0)


def ask(run, tools, prompt, sent, **fields):
    """Run a request and return the ``SamplingParams`` that the library got."""
    fields.setdefault("sampling", NEUTRAL)
    run(lambda core, _: tools.collect(core, tools.request(fields.pop("prompt_ids", prompt(9)), 3, **fields)))
    return sent.params()


def test_neutral_values_are_spelled_out(run, tools, prompt, sent, ids):
    """Nothing is left for the library's or the checkpoint's defaults to fill."""
    params = ask(run, tools, prompt, sent, stop_ids=(ids["<turn|>"], ids["<eos>"]))
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (1.0, 0, 1.0, 0.0)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.0, 0.0, 0.0)
    assert params.prompt_ignore_length == 9
    assert params.embedding_bias is params.guided_decoding is params.logprobs is None
    assert (params.end_id, params.pad_id) == (ids["<eos>"], ids["<pad>"])
    assert params.ignore_eos is params.include_stop_str_in_output is True
    assert params.stop_token_ids == sorted((ids["<turn|>"], ids["<eos>"]))
    assert params.detokenize is params.add_special_tokens is False
    assert (params.max_tokens, params.n) == (3, 1)
    assert isinstance(params.seed, int)
    assert sent.inputs() == list(prompt(9))


def test_every_value_arrives(run, tools, prompt, sent):
    """Each field of a sampling reaches the field of the same meaning."""
    wanted = Sampling(0.7, 40, 0.9, 0.05, 1.1, 0.2, 0.3, seed=2**64 - 1, logit_bias={4: -math.inf, 7: 2.5})
    params = ask(run, tools, prompt, sent, sampling=wanted, logprobs=0, cache_salt="tenant")
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.7, 40, 0.9, 0.05)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.1, 0.2, 0.3)
    assert (params.seed, params.logprobs) == (2**64 - 1, 0)
    bias = params.embedding_bias.array
    assert bias.dtype == np.float32
    assert {int(i): float(bias[i]) for i in np.flatnonzero(bias)} == {4: -1e9, 7: 2.5}
    assert sent.cache_salt() == "tenant"


def test_the_end_of_a_grammar_ends_the_sequence_in_the_library(run, tools, prompt, sent, ids):
    """What its matcher allows after the end is a stop id, whatever the request says, and it is told to stop at once."""

    async def body(core, engine):
        await tools.collect(core, tools.request(prompt(9), 40, grammar="start: /[0-9]{3}/", ignore_stop_ids=True))
        return engine.aborts

    assert run(body) == 1
    assert sent.params().stop_token_ids == [ids["<eos>"]]
    assert sent.params().guided_decoding.given == {"grammar": "start: /[0-9]{3}/"}


def test_greedy_is_said_in_every_way(run, tools, prompt, sent):
    """Temperature 0 closes all other filters."""
    params = ask(run, tools, prompt, sent, sampling=Sampling(temperature=0.0, seed=3))
    assert (params.temperature, params.top_k, params.top_p, params.min_p, params.seed) == (0.0, 1, 1.0, 0.0, None)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"grammar": "start: /[0-9]{6}/", "grammar_begun": 2}, "grammar_begun"),
        ({"grammar": "start: /[0-9]*/", "min_tokens": 4, "stop_ids": (1,)}, "min_tokens"),
        ({"prompt_ids": (2, -1)}, "prompt_ids"),
        ({"logprobs": 21}, "logprobs"),
        ({"sampling": Sampling(temperature=math.nan)}, "temperature"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(run, tools, prompt, fields, named):
    """Before the library has the request, with the field's name."""

    async def body(core, engine):
        with pytest.raises(InvalidRequestError, match=named):
            await tools.collect(core, tools.request(**{"prompt_ids": prompt(9), "max_tokens": 4, **fields}))
        return engine.requests

    assert run(body) == []


def test_an_over_long_prompt_names_both_numbers(run, tools, prompt):
    """A prompt that leaves no room for one id tells its length and the context."""
    with pytest.raises(ContextOverflowError) as caught:
        run(lambda core, _: tools.collect(core, tools.request(prompt(512), 1)))
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (512, 512)


@pytest.mark.parametrize(
    "grammar", ['start: "unclosed', "start: missing_rule", 'start: "a"\n}\nx: %lark {\nstart: "b"']
)
def test_a_bad_grammar_is_refused_here(run, tools, prompt, grammar):
    """The library never sees a grammar that does not compile by itself, nor one that would close the one around it."""

    async def body(core, engine):
        with pytest.raises(InvalidGrammarError):
            await tools.collect(core, tools.request(prompt(9), 8, grammar=grammar, stop_ids=(1,)))
        return engine.requests

    assert run(body) == []


def noise(width, height, seed):
    return Image(random.Random(seed).randbytes(width * height * 3), width, height)


@pytest.fixture
def around(prompt, ids):
    """A function that returns a prompt around the places of pictures, with what a user spelled between them."""

    def build(*images, spelled=()):
        found = list(prompt(8))
        for image in images:
            found += [ids["<|image>"], *[ids["<|image|>"]] * image.soft_tokens, ids["<image|>"], *spelled]
        return (*found, *prompt(6)[1:])

    return build


def test_pictures_keep_their_places_and_the_prompts_own_ids(run, tools, around, sent, ids):
    """The library gets exactly our ids, also where a user spelled a marker, and pictures of the sizes that we chose."""
    images = (noise(96, 48, 1), noise(1104, 48, 2), noise(1584, 1584, 3))
    spelled = [ids[sign] for sign in "<|image|>"]
    wanted = tools.request(around(*images, spelled=spelled), 3, images=images)
    result = run(lambda core, _: tools.collect(core, wanted), context_tokens=2048)
    assert len(result.token_ids) == 3
    assert result.usage.prompt_tokens == len(wanted.prompt_ids)
    assert sent.inputs().prompt_token_ids == list(wanted.prompt_ids)


def test_the_picture_decides(run, tools, around):
    """The same prompt around another picture, or two pictures the other way round, give another answer."""
    one, two = noise(96, 96, 4), noise(96, 96, 5)

    async def body(core, _):
        pairs = [(one, two), (two, one), (one, two)]
        return [(await tools.collect(core, tools.request(around(*pair), 6, images=pair))).token_ids for pair in pairs]

    forward, backward, again = run(body)
    assert forward == again != backward


@pytest.mark.parametrize("layout", ["touching", "last"])
def test_pictures_without_markers_are_refused(run, tools, prompt, ids, layout):
    """TensorRT-LLM writes a marker on both sides of a picture, so a prompt must have room for them."""
    one, two = noise(96, 48, 6), noise(144, 48, 7)
    tail = (*[ids["<|image|>"]] * 5, *prompt(3)) if layout == "touching" else (*[ids["<|image|>"]] * 2,)
    images = (one, two) if layout == "touching" else (one,)
    with pytest.raises(InvalidRequestError, match=r"images\[[01]\].*marker"):
        run(lambda core, _: tools.collect(core, tools.request((*prompt(6), *tail), 3, images=images)))


def test_a_bad_picture_is_refused(run, tools, around):
    """A picture that is no multiple of 48 pixels is named by its place."""
    image = Image(b"\0" * (50 * 48 * 3), 50, 48)
    with pytest.raises(InvalidImageError, match=r"images\[0\]"):
        run(lambda core, _: tools.collect(core, tools.request(around(image), 2, images=(image,))))


def test_a_layout_that_is_not_ours_is_never_used(run, tools, around, monkeypatch):
    """Should the library size a picture otherwise after all, the request fails instead of mixing up places."""
    from tests.fakes import tensorrt_llm_engine  # noqa: PLC0415 - the class is patched where it is used

    image = noise(96, 96, 1)

    async def body(core, engine):
        monkeypatch.setattr(tensorrt_llm_engine.StandInEngine, "_soft_tokens", lambda *_: 3)
        with pytest.raises(EngineError, match="lays 3 image tokens out among 18 ids; the prompt has 4 among 19"):
            await tools.collect(core, tools.request(around(image), 2, images=(image,)))
        return engine.requests

    assert run(body) == []
