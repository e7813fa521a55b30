"""Turns every picture of a request into pixels: limits first, then what needs no network, then reading and decoding.

Says which message and part is at fault; what is wrong is for ``api.media.source``, ``api.media.fetch`` and the decoder.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from api.chat.request import ChatRequest, ContentPart, ImagePart, Message, ResolvedImage
from api.chat.together import run_together
from api.errors import BadRequestError, MediaError
from api.media.cache import ImageCache, image_key
from api.media.encoded import EncodedPicture
from api.media.errors import DecodeError, SourceError
from api.media.fetch import UrlFetcher
from api.media.local_file import read_local_file
from api.media.size import BUDGETS, Budget
from api.media.source import FileSource, InlineSource, Source, UrlSource, read_source
from api.telemetry.record import Picture, current_record
from engine.core import Image

LOSSLESS: Final = 0
"""``ImagePart.max_soft_tokens`` of ``detail: original``: the budget follows from the picture's own size."""

_INSTEAD: Final = "send the image as a data: URL instead"

FILE_TIMEOUT_S: Final = 10.0

_KINDS: Final = MappingProxyType({InlineSource: "inline", UrlSource: "url", FileSource: "file"})
"""How metrics call the kinds of sources."""

MAX_PARALLEL_PER_REQUEST: Final = 4
"""Pictures of one request that are read and decoded at the same time."""


class Decoder(Protocol):
    """Turns picture files into pixels, outside of this process or at least outside of its event loop."""

    async def decode(self, picture: EncodedPicture, budget: Budget) -> Image:
        """Return the sized picture.

        Raises:
            DecodeError: when the file is no picture that can be used.
            api.errors.RetryableError: when the decoder cannot take it now.
        """
        ...


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What this server accepts per request. ``local_folder`` is the one folder whose files may be named."""

    max_images: int = 5
    default_tokens: int = 280
    max_image_bytes: int = 20 * 1024 * 1024
    local_folder: Path | None = None
    cache_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Job:
    """One picture to make: from where, how large, and how the caller calls it."""

    source: Source
    budget: Budget
    param: str


class MediaResolver:
    """Reads and decodes the pictures of requests. Without a fetcher, URLs are refused."""

    def __init__(self, limits: MediaLimits, decoder: Decoder, fetcher: UrlFetcher | None = None) -> None:
        if limits.default_tokens not in BUDGETS:
            msg = f"the default number of image tokens must be one of {BUDGETS}, not {limits.default_tokens}"
            raise ValueError(msg)
        self._limits = limits
        self._decoder = decoder
        self._fetcher = fetcher
        self._cache = ImageCache(limits.cache_bytes)

    async def resolve(self, request: ChatRequest, *, vision: bool) -> ChatRequest:
        """Return the request with every ``ImagePart`` replaced by a ``ResolvedImage``.

        Raises:
            BadRequestError: for too many pictures, or any for a model without a vision tower.
            MediaError: naming the message and part that cannot be used; the first one in order.
            api.errors.RetryableError: when too much is being fetched or decoded already.
        """
        parts = [part for message in request.messages for part in _parts(message) if isinstance(part, ImagePart)]
        if not parts:
            return request
        self._check_count(len(parts), vision=vision)
        # Everything that is wrong without looking at the network is found before anything is fetched.
        jobs = [self._job(part) for part in parts]
        places = asyncio.Semaphore(MAX_PARALLEL_PER_REQUEST)
        outcomes = await run_together([self._make(job, places, request.cache_salt) for job in jobs])
        images: list[Image] = []
        for outcome in outcomes:
            if isinstance(outcome, MediaError):
                raise outcome
            images.append(outcome)
        pictures = iter(images)
        messages = tuple(_replace_images(message, pictures_of=pictures.__next__) for message in request.messages)
        return replace(request, messages=messages)

    def _check_count(self, count: int, *, vision: bool) -> None:
        limit = self._limits.max_images
        if not vision:
            raise BadRequestError(
                "This model is served without a vision tower: images are not accepted. Send text only.",
                param="messages",
                code="images_not_supported",
            )
        if count > limit:
            advice = "Send fewer images, or shorten the conversation." if limit else "This server takes text only."
            raise BadRequestError(
                f"At most {limit} image(s) may be provided in one prompt; {count} were sent. {advice}",
                param="messages",
                code="too_many_images",
            )

    def _job(self, part: ImagePart) -> _Job:
        """Understand one part without reading anything.

        Raises:
            MediaError: when its source is not accepted.
        """
        tokens = self._limits.default_tokens if part.max_soft_tokens is None else part.max_soft_tokens
        budget = Budget(tokens=tokens or BUDGETS[-1], lossless=tokens == LOSSLESS)
        param = part.param or "messages"
        try:
            source = read_source(part.source.url, max_bytes=self._limits.max_image_bytes)
            self._check_enabled(source)
        except SourceError as error:
            raise _media_error(param, error.message) from error
        return _Job(source, budget, param)

    def _check_enabled(self, source: Source) -> None:
        if isinstance(source, UrlSource):
            if self._fetcher is None:
                raise SourceError(f"this server does not fetch images by URL; {_INSTEAD}")
            self._fetcher.check(source.target)
        elif isinstance(source, FileSource) and self._limits.local_folder is None:
            raise SourceError(f"this server does not read image files by path; {_INSTEAD}")

    async def _make(self, job: _Job, places: asyncio.Semaphore, salt: str) -> Image | MediaError:
        """Read and decode one picture. A fault is returned, so that the first part in order is the one reported."""
        picture = Picture(_KINDS[type(job.source)], time.perf_counter())
        current_record().pictures.append(picture)
        try:
            async with places:
                picture.started = time.perf_counter()
                encoded = await self._read(job.source)
                picture.fetch_s = time.perf_counter() - picture.started
                return await self._decode(encoded, job.budget, salt, picture)
        except (SourceError, DecodeError) as error:
            return _media_error(job.param, error.message)

    async def _read(self, source: Source) -> EncodedPicture:
        if isinstance(source, InlineSource):
            return source.picture
        if isinstance(source, UrlSource) and self._fetcher is not None:
            return EncodedPicture(await self._fetcher.fetch(source.target))
        if isinstance(source, FileSource) and self._limits.local_folder is not None:
            return EncodedPicture(await self._read_file(source.path, self._limits.local_folder))
        raise SourceError("its source is not enabled on this server")

    async def _read_file(self, path: str, folder: Path) -> bytes:
        """Read off the event loop; a file system that hangs keeps its thread, but not the request."""
        try:
            async with asyncio.timeout(FILE_TIMEOUT_S):
                return await asyncio.to_thread(read_local_file, folder, path, max_bytes=self._limits.max_image_bytes)
        except TimeoutError as error:
            raise SourceError(f"its file could not be read within {FILE_TIMEOUT_S:g} seconds") from error

    async def _decode(self, encoded: EncodedPicture, budget: Budget, salt: str, picture: Picture) -> Image:
        key = await image_key(encoded, budget, salt) if self._cache.is_enabled else None
        image = None if key is None else self._cache.get(key)
        if image is not None:
            picture.outcome = "cached"
            return image
        begun = time.perf_counter()
        image = await self._decoder.decode(encoded, budget)
        picture.decode_s, picture.outcome = time.perf_counter() - begun, "used"
        if key is not None:
            self._cache.put(key, image)
        return image


def _media_error(param: str, reason: str) -> MediaError:
    return MediaError(f"Invalid image in {param}: {reason}.", param=param)


def _parts(message: Message) -> Sequence[ContentPart]:
    content = message.content
    return content if isinstance(content, tuple) else ()


def _replace_images(message: Message, pictures_of: Callable[[], Image]) -> Message:
    """Put the next pictures at the places of this message's image parts."""
    if not any(isinstance(part, ImagePart) for part in _parts(message)):
        return message
    content = tuple(ResolvedImage(pictures_of()) if isinstance(part, ImagePart) else part for part in _parts(message))
    return replace(message, content=content)
