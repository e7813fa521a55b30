"""Lifts pictures out of a request body before the body is parsed as JSON.

A parser would check and copy megabytes of base64 while every other client waits, only for them to be copied again.
Instead each large ``data:`` payload is replaced by a short token, and ``find`` leads from the token to its place in the
body, in the same request only. Tokens cannot be guessed, and lead nowhere but into the caller's own body.
"""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from api.media.encoded import EncodedPicture
from api.media.large_body import LargeBody

LEAST_BYTES: Final = 64 * 1024
"""Shorter payloads are parsed as any other text."""
MAX_MARKS: Final = 1024
"""Payloads, of any length, that are looked at; what comes after them is parsed as any other text."""
_MARK: Final = b";base64,"
_PICTURES: Final = frozenset({"image_url", "input_image", "image"})
_TOKEN_LENGTH: Final = 40


@dataclass(frozen=True, slots=True)
class LiftedBody:
    """A body without its pictures. ``found`` holds these by their tokens."""

    rest: bytes | memoryview
    found: dict[str, EncodedPicture] = field(default_factory=dict)

    def is_all_pictures(self, value: object) -> bool:
        """Tell whether every token stands where a picture belongs in the parsed rest; if not, it must not be used."""
        return {text[-_TOKEN_LENGTH:] for text in _picture_texts(value)} >= self.found.keys()


_NOTHING: Final[dict[str, EncodedPicture]] = {}
_current: ContextVar[dict[str, EncodedPicture]] = ContextVar("lifted pictures", default=_NOTHING)


def lift(body: bytes | LargeBody) -> LiftedBody:
    """Return the body with its large payloads lifted out."""
    found: dict[str, EncodedPicture] = {}
    parts: list[bytes | memoryview] = []
    view, copied, place = body.view if isinstance(body, LargeBody) else memoryview(body), 0, 0
    for _ in range(MAX_MARKS):
        mark = body.find(_MARK, place)
        if mark < 0:
            break
        start = mark + len(_MARK)
        # JSON has nothing like the mark outside of strings, so the next quotation mark ends one unless it is escaped.
        place = body.find(b'"', start)
        if place < 0:
            break
        if place - start >= LEAST_BYTES and body.find(b"\\", start, place) < 0:
            token = secrets.token_hex(_TOKEN_LENGTH // 2)
            found[token] = EncodedPicture(body, is_base64=True, start=start, end=place)
            parts += (view[copied:start], token.encode())
            copied = place
    return LiftedBody(b"".join((*parts, view[copied:])) if found else whole(body), found)


def whole(body: bytes | LargeBody) -> bytes | memoryview:
    """Return a body as parsers take it."""
    return body.view if isinstance(body, LargeBody) else body


def remember(lifted: LiftedBody) -> None:
    """Make the pictures findable for the rest of this request."""
    _current.set(lifted.found)


def find(text: str, start: int) -> EncodedPicture | None:
    """Return the picture whose token begins at ``start``; None for any other text."""
    return _current.get().get(text[start:]) if len(text) - start == _TOKEN_LENGTH else None


def _picture_texts(value: object) -> list[str]:
    """Return the texts of all parts that are pictures."""
    texts: list[str] = []
    for message in _list(value, "messages"):
        for part in _list(message, "content"):
            if isinstance(part, dict) and part.get("type") in _PICTURES:
                sources: list[Any] = [part.get(name) for name in ("image_url", "image", "url", "base64")]
                sources += [source.get("url") for source in sources if isinstance(source, dict)]
                texts += [source for source in sources if isinstance(source, str)]
        texts += [text for text in _list(message, "images") if isinstance(text, str)]
    return texts


def _list(value: object, name: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []
