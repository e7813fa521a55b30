"""Remembers decoded pictures by their content: clients send a conversation's pictures again with every turn.

Bounded in bytes; the picture that was not used for the longest time goes first. The key holds everything that the
result depends on, and the caller's cache salt, so that no tenant can find out by timing what another one sent.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from api.media.encoded import EncodedPicture
from api.media.size import Budget
from engine.core import Image

_SLICE: Final = 1 << 20
_SHORT: Final = 1 << 15
"""Content up to this size is hashed at once; more in a thread, which lets the event loop run beside it."""


@dataclass(frozen=True, slots=True)
class ImageKey:
    """What a decoded picture depends on, and for whom."""

    digest: bytes
    is_base64: bool
    budget: Budget
    salt: str


async def image_key(picture: EncodedPicture, budget: Budget, salt: str) -> ImageKey:
    """Return the key of a picture by the SHA-256 of its content as it was sent."""
    if picture.size <= _SHORT:
        digest = _digest(picture)
    else:
        digest = await asyncio.to_thread(_digest, picture)
    return ImageKey(digest, picture.is_base64, budget, salt)


class ImageCache:
    """The pictures of one process. Not for use by several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: OrderedDict[ImageKey, Image] = OrderedDict()
        self.size_bytes = 0

    @property
    def is_enabled(self) -> bool:
        """Whether anything can be remembered."""
        return self._max_bytes > 0

    def get(self, key: ImageKey) -> Image | None:
        """Return the picture if it is remembered."""
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
        return image

    def put(self, key: ImageKey, image: Image) -> None:
        """Remember a picture, and forget others to make room."""
        size = len(image.rgb)
        if size > self._max_bytes or key in self._images:
            return
        self._images[key] = image
        self.size_bytes += size
        while self.size_bytes > self._max_bytes:
            _, oldest = self._images.popitem(last=False)
            self.size_bytes -= len(oldest.rgb)


def _digest(picture: EncodedPicture) -> bytes:
    digest = hashlib.sha256()
    for start in range(0, picture.size, _SLICE):
        part = picture.part(start, _SLICE)
        digest.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return digest.digest()
