"""Turns every picture of a request into pixels: limits first, then reading, then decoding off the event loop.

The decoder is a callable run by an executor: threads today; a pool of decoder processes takes the same place. Says
which message and part is at fault; what is wrong with the bytes is for ``api.media.source`` and ``api.media.decode``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from api.chat.request import ChatRequest, ContentPart, ImagePart, Message, ResolvedImage
from api.errors import BadRequestError, MediaError
from api.media.decode import Budget, DecodeError, decode_image
from api.media.size import BUDGETS
from api.media.source import Fetcher, NoFetcher, SourceError, decode_data_url, is_data_url, scheme_of
from engine.core import Image

LOSSLESS = 0
"""``ImagePart.max_soft_tokens`` of ``detail: original``: the budget follows from the picture's own size."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What this server accepts per request."""

    max_images: int = 5
    default_tokens: int = 280
    max_image_bytes: int = 20 * 1024 * 1024


class MediaResolver:
    """Reads and decodes the pictures of requests."""

    def __init__(self, limits: MediaLimits, executor: Executor, fetcher: Fetcher | None = None) -> None:
        if limits.default_tokens not in BUDGETS:
            msg = f"the default number of image tokens must be one of {BUDGETS}, not {limits.default_tokens}"
            raise ValueError(msg)
        self._limits = limits
        self._executor = executor
        self._fetcher = fetcher or NoFetcher()

    async def resolve(self, request: ChatRequest, *, vision: bool) -> ChatRequest:
        """Return the request with every ``ImagePart`` replaced by a ``ResolvedImage``.

        Raises:
            BadRequestError: for too many pictures, or any for a model without a vision tower.
            MediaError: naming the message and part that cannot be used.
        """
        parts = [part for message in request.messages for part in _parts(message) if isinstance(part, ImagePart)]
        if not parts:
            return request
        self._check_count(len(parts), vision=vision)
        images: list[Image] = []
        outcomes = await asyncio.gather(*(self._resolve_part(part) for part in parts))
        for outcome in outcomes:
            if isinstance(outcome, MediaError):
                raise outcome
            images.append(outcome)
        pictures = iter(images)
        messages = tuple(_replace_images(message, pictures_of=pictures.__next__) for message in request.messages)
        return replace(request, messages=messages)

    def _check_count(self, count: int, *, vision: bool) -> None:
        if not vision:
            raise BadRequestError(
                "This model is served without a vision tower: images are not accepted.",
                param="messages",
                code="images_not_supported",
            )
        if count > self._limits.max_images:
            raise BadRequestError(
                f"At most {self._limits.max_images} image(s) may be provided in one prompt; {count} were sent.",
                param="messages",
                code="too_many_images",
            )

    async def _resolve_part(self, part: ImagePart) -> Image | MediaError:
        """Read and decode one picture. A fault is returned, so that the first part in order is the one reported."""
        tokens = self._limits.default_tokens if part.max_soft_tokens is None else part.max_soft_tokens
        budget = Budget(tokens=tokens or BUDGETS[-1], lossless=tokens == LOSSLESS)
        loop = asyncio.get_running_loop()
        try:
            if is_data_url(part.source.url):
                return await loop.run_in_executor(
                    self._executor, _decode_data_url, part.source.url, budget, self._limits.max_image_bytes
                )
            return await loop.run_in_executor(self._executor, decode_image, await self._fetch(part.source.url), budget)
        except (SourceError, DecodeError) as error:
            return MediaError(f"Invalid image in {part.param or 'messages'}: {error.message}.", param=part.param)

    async def _fetch(self, url: str) -> bytes:
        scheme = scheme_of(url)
        if scheme not in {"http", "https"}:
            raise SourceError("an image URL must start with data:, http: or https:")
        return await self._fetcher.fetch(url)


def _decode_data_url(url: str, budget: Budget, max_bytes: int) -> Image:
    return decode_image(decode_data_url(url, max_bytes=max_bytes), budget)


def _parts(message: Message) -> Sequence[ContentPart]:
    content = message.content
    return content if isinstance(content, tuple) else ()


def _replace_images(message: Message, pictures_of: Callable[[], Image]) -> Message:
    """Put the next pictures at the places of this message's image parts."""
    if not any(isinstance(part, ImagePart) for part in _parts(message)):
        return message
    content = tuple(ResolvedImage(pictures_of()) if isinstance(part, ImagePart) else part for part in _parts(message))
    return replace(message, content=content)
