"""Decoded pictures are remembered by content, within a bound, and never across tenants."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.chat.request import ChatRequest, ImagePart, ImageSource, UserMessage
from api.media.cache import ImageCache, ImageKey, image_key
from api.media.decode import Budget
from api.media.encoded import EncodedPicture
from api.media.resolver import LOSSLESS, MediaLimits, MediaResolver
from engine.core import Image

PICTURE = Image(bytes(48 * 48 * 3), 48, 48)
SIZE = len(PICTURE.rgb)


def key(name: str) -> ImageKey:
    """Return a key that differs by name."""
    return ImageKey(name.encode(), is_base64=False, budget=Budget(70), salt="")


def test_cache_is_bounded_and_forgets_the_oldest() -> None:
    """It never holds more than its bytes; what was used last stays."""
    cache = ImageCache(2 * SIZE)
    cache.put(key("a"), PICTURE)
    cache.put(key("b"), PICTURE)
    assert cache.get(key("a")) is PICTURE
    cache.put(key("c"), PICTURE)
    assert cache.size_bytes == 2 * SIZE
    assert [cache.get(key(name)) is not None for name in "abc"] == [True, False, True]


def test_picture_larger_than_the_cache_is_not_kept() -> None:
    """One large picture does not empty the cache."""
    cache = ImageCache(SIZE)
    cache.put(key("a"), PICTURE)
    cache.put(key("b"), Image(bytes(2 * SIZE), 96, 48))
    assert cache.get(key("a")) is PICTURE
    assert cache.size_bytes == SIZE


class CountingDecoder:
    """A decoder that counts."""

    def __init__(self) -> None:
        self.count = 0

    async def decode(self, *_: Any) -> Image:
        self.count += 1
        return PICTURE


def decoded(resolver_bytes: int, *asked: tuple[str, int | None, str]) -> int:
    """Return how many pictures were decoded for requests of (text, budget, cache salt)."""
    decoder = CountingDecoder()

    async def run() -> None:
        resolver = MediaResolver(MediaLimits(cache_bytes=resolver_bytes), decoder)
        for text, tokens, salt in asked:
            part = ImagePart(ImageSource(text), max_soft_tokens=tokens, param="messages.0.content.0")
            await resolver.resolve(ChatRequest("m", (UserMessage((part,)),), cache_salt=salt), vision=True)

    asyncio.run(run())
    return decoder.count


def test_picture_of_an_earlier_turn_is_not_decoded_again() -> None:
    """The same content at the same budget is decoded once, whatever ``data:`` URL is around it."""
    assert decoded(SIZE, ("data:image/png;base64,aGVsbG8=", 70, ""), ("data:;base64,aGVsbG8=", 70, "")) == 1
    assert decoded(SIZE, ("aGVsbG8=", 70, ""), ("aGVsbG8=", 70, "")) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("aGVsbG8=", 70, ""), ("aGVsbG9=", 70, "")),
        (("aGVsbG8=", 70, ""), ("aGVsbG8=", 140, "")),
        (("aGVsbG8=", 1120, ""), ("aGVsbG8=", LOSSLESS, "")),
        (("aGVsbG8=", 70, "tenant 1"), ("aGVsbG8=", 70, "tenant 2")),
    ],
)
def test_other_content_budget_or_tenant_is_decoded_anew(
    first: tuple[str, int, str], second: tuple[str, int, str]
) -> None:
    """Everything that the pixels depend on, and the cache salt, is part of the key."""
    assert decoded(10 * SIZE, first, second) == 2


def test_cache_can_be_turned_off() -> None:
    """With no bytes nothing is kept."""
    assert decoded(0, ("aGVsbG8=", 70, ""), ("aGVsbG8=", 70, "")) == 2


def test_bytes_and_base64_of_any_size_have_keys_of_their_own() -> None:
    """Small and large content is hashed from where it starts; text and bytes never share a key."""

    async def digests() -> set[ImageKey]:
        large = "aGVs" * 1_000_000
        pictures = [
            EncodedPicture(large, is_base64=True),
            EncodedPicture(large, is_base64=True, start=4),
            EncodedPicture(large.encode()),
            EncodedPicture("aGVs", is_base64=True),
            EncodedPicture(b"aGVs"),
        ]
        return {await image_key(picture, Budget(70), "") for picture in pictures}

    assert len(asyncio.run(digests())) == 5
