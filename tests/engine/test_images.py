"""Pictures in prompts, on the core itself and through gRPC."""

from __future__ import annotations

import random

import pytest

from engine.core import Image
from engine.errors import InvalidImageError, InvalidRequestError


def noise(width: int, height: int, seed: int) -> Image:
    """Return a picture of random pixels."""
    return Image(random.Random(seed).randbytes(width * height * 3), width, height)


@pytest.fixture
def with_images(vocabulary):
    """A function that returns a prompt around the places of pictures."""

    def build(*images: Image, tail: int = 6) -> tuple[int, ...]:
        ids = list(vocabulary.prompt(8))
        for image in images:
            ids += [vocabulary.ids["<|image>"], *[vocabulary.image] * image.soft_tokens, vocabulary.ids["<image|>"]]
        return (*ids, *vocabulary.ordinary(tail, seed=2))

    return build


ROUNDING = 0.05
"""Where in the cache a sequence lies, and what is computed beside it, moves log probabilities by less."""


def first_logprobs(result):
    return [logprob for _, logprob in result.logprobs[0].top]


def test_the_picture_decides(run, tools, with_images):
    """The same prompt around another picture has other probabilities; around the same picture the same ones."""
    one, other = noise(144, 96, 1), noise(144, 96, 2)

    async def body(engine):
        wanted = [
            tools.request(with_images(one), 3, images=(image,), logprobs=5, cache_salt=salt)
            for image, salt in ((one, "a"), (other, "b"), (one, "c"))
        ]
        return [await tools.collect(engine, request) for request in wanted]

    first, second, third = run(body)
    assert first_logprobs(first) == pytest.approx(first_logprobs(third), abs=ROUNDING)
    assert first_logprobs(first) != pytest.approx(first_logprobs(second), abs=ROUNDING)
    assert first.usage.prompt_tokens == 8 + 2 + 6 + 6


@pytest.mark.parametrize("size", [(48, 48), (48, 1104), (960, 48), (816, 624), (1584, 1584)])
def test_every_size_of_the_budgets_fits(run, tools, with_images, size):
    """Pictures from one soft token to more than a thousand are computed."""
    image = noise(*size, seed=3)
    result = run(lambda engine: tools.collect(engine, tools.request(with_images(image), 2, images=(image,))))
    assert result.usage.prompt_tokens == image.soft_tokens + 16
    assert len(result.token_ids) == 2


def test_two_pictures_keep_their_order(run, tools, with_images):
    """The n-th picture fills the n-th run."""
    one, two = noise(96, 96, 4), noise(96, 96, 5)

    async def body(engine):
        prompt = with_images(one, two)
        pairs = [((one, two), "a"), ((two, one), "b")]
        return [
            await tools.collect(engine, tools.request(prompt, 2, images=pair, logprobs=5, cache_salt=salt))
            for pair, salt in pairs
        ]

    forward, backward = run(body)
    assert first_logprobs(forward) != pytest.approx(first_logprobs(backward), abs=ROUNDING)


@pytest.mark.differs(tensorrt_llm="needs markers around pictures")
def test_pictures_may_touch_and_may_come_last(run, tools, vocabulary):
    """Neither a marker between two pictures nor text after the last one is needed."""
    one, two = noise(96, 48, 6), noise(144, 48, 7)
    prompt = (*vocabulary.prompt(6), *[vocabulary.image] * 5)
    result = run(lambda engine: tools.collect(engine, tools.request(prompt, 3, images=(one, two))))
    assert len(result.token_ids) == 3


@pytest.mark.differs(tensorrt_llm="has no block reuse for Gemma 4")
def test_a_picture_counts_for_the_prefix_cache(run, tools, with_images, cache_block):
    """The same picture is found again; another one in its place ends the common prefix before it."""
    one, other = noise(288, 240, 8), noise(288, 240, 9)

    async def body(engine):
        prompt = with_images(one, tail=40)
        same = {"cache_salt": "pictures"}
        first = await tools.collect(engine, tools.request(prompt, 2, images=(one,), **same))
        again = await tools.collect(engine, tools.request(prompt, 2, images=(one,), **same))
        changed = await tools.collect(engine, tools.request(prompt, 2, images=(other,), **same))
        return first, again, changed

    first, again, changed = run(body)
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens == (again.usage.prompt_tokens - 1) // cache_block * cache_block
    assert again.token_ids == first.token_ids
    assert changed.usage.cached_tokens <= 9


@pytest.mark.parametrize("change", [-1, 1, -6])
def test_runs_must_match_the_pictures(run, tools, vocabulary, change):
    """Fewer or more image tokens than the pictures need are refused."""
    image = noise(144, 96, 1)
    prompt = (*vocabulary.prompt(4), *[vocabulary.image] * (image.soft_tokens + change), *vocabulary.ordinary(3))
    with pytest.raises(InvalidRequestError, match="image-token runs"):
        run(lambda engine: tools.collect(engine, tools.request(prompt, 2, images=(image,))))


def test_image_tokens_without_pictures_are_refused(run, tools, vocabulary):
    """An image token in the prompt needs a picture."""
    with pytest.raises(InvalidRequestError, match="image-token runs"):
        run(lambda engine: tools.collect(engine, tools.request((*vocabulary.prompt(4), vocabulary.image), 2)))


@pytest.mark.parametrize(
    "image",
    [
        Image(b"\0" * (50 * 48 * 3), 50, 48),
        Image(b"\0" * 10, 48, 48),
        Image(b"", 0, 0),
        Image(b"", -48, -48),
        Image(b"\0" * (48 * 48 * 1121 * 3), 48 * 1121, 48),
    ],
    ids=["odd", "short", "empty", "negative", "large"],
)
def test_a_bad_picture_is_refused(run, tools, vocabulary, image):
    """A picture that the tower cannot take is named by its place; the engine goes on."""
    prompt = (*vocabulary.prompt(4), *[vocabulary.image] * max(0, image.soft_tokens))

    async def body(engine):
        with pytest.raises(InvalidImageError, match=r"images\[0\]"):
            await tools.collect(engine, tools.request(prompt, 2, images=(image,)))
        return await tools.collect(engine, tools.request(vocabulary.prompt(4), 2))

    assert len(run(body).token_ids) == 2
