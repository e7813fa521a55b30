"""What a caller means by the text of a picture: a ``data:`` URL, bare base64, an http(s) URL, or a path. Pure.

Nothing is decoded, read or fetched here, and nothing large is copied. Faults are ``SourceError`` with a safe message;
``api.media.resolver`` adds which message and part it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pydantic_core import Url, ValidationError

from api.media.encoded import EncodedPicture
from api.media.errors import SourceError
from api.media.fetch_target import MAX_URL_LENGTH, FetchTarget, parse_target
from api.media.lifting import find as find_lifted

_SCHEME: Final = re.compile(r"\s{0,64}([A-Za-z][A-Za-z0-9+.-]{0,31}):")
_BASE64_HEADER: Final = re.compile(r"[^,]*;\s*base64\s*\Z", re.IGNORECASE)
_JPEG_START: Final = "/9j/"
"""How every JPEG starts in base64: the only accepted format that looks like an absolute path."""
_MAX_PATH: Final = 4096
_MAX_HEADER: Final = 1024
_EXPECTED: Final = "it must be a data: URL, an http(s) URL, or base64"


@dataclass(frozen=True, slots=True)
class InlineSource:
    """The picture itself is in the request."""

    picture: EncodedPicture


@dataclass(frozen=True, slots=True)
class UrlSource:
    """The picture is on a server."""

    target: FetchTarget


@dataclass(frozen=True, slots=True)
class FileSource:
    """The picture is on this machine. The path is the caller's, unchecked."""

    path: str


Source = InlineSource | UrlSource | FileSource


def read_source(text: str, *, max_bytes: int) -> Source:
    """Tell where a picture is.

    Raises:
        SourceError: when the text is none of the accepted forms, or plainly holds more than ``max_bytes``.
    """
    found = _SCHEME.match(text)
    if found is None:
        return FileSource(text.strip()) if _is_path(text) else _inline(text, 0, max_bytes)
    scheme = found[1].lower()
    if scheme == "data":
        return _data_url(text, found.end(), max_bytes)
    if scheme in {"http", "https"}:
        return UrlSource(parse_target(_short(text)))
    if scheme == "file":
        return FileSource(_file_url(_short(text)))
    raise SourceError(f"its URL has a scheme that is not accepted; {_EXPECTED}")


def _short(text: str) -> str:
    """Return a URL without the spaces around it; one of picture size is not worth a copy."""
    if len(text) > MAX_URL_LENGTH:
        raise SourceError(f"the URL is longer than {MAX_URL_LENGTH} characters")
    return text.strip(" ")


def _data_url(text: str, start: int, max_bytes: int) -> InlineSource:
    """Find the data of a ``data:`` URL. The media type is not trusted: the content decides the format."""
    comma = text.find(",", start, start + _MAX_HEADER)
    if comma < 0:
        raise SourceError("its data: URL has no comma between the media type and the data")
    if not _BASE64_HEADER.match(text[start:comma]):
        raise SourceError("its data: URL must hold base64, like data:image/png;base64,iVBORw0KGgo=")
    return _inline(text, comma + 1, max_bytes)


def _inline(text: str, start: int, max_bytes: int) -> InlineSource:
    if not text[start : start + _MAX_HEADER].strip():
        raise SourceError("it holds no data")
    picture = find_lifted(text, start) or EncodedPicture(text, is_base64=True, start=start)
    # Four characters carry three bytes; white space, padding and escapes only add to them, so they get some room.
    if picture.size > max_bytes * 2:
        raise SourceError(f"it is larger than {max_bytes} bytes")
    return InlineSource(picture)


def _is_path(text: str) -> bool:
    """Tell a path from bare base64, which has no dot and starts with a slash for JPEG only."""
    if len(text) > _MAX_PATH:
        return False
    start = text.lstrip()
    return (start.startswith("/") and not start.startswith(_JPEG_START)) or "." in start


def _file_url(text: str) -> str:
    """Return the path of a ``file:`` URL."""
    try:
        url = Url(text) if len(text) <= _MAX_PATH else None
    except ValidationError:
        url = None
    if url is None or url.host is not None or not url.path or "%00" in url.path:
        raise SourceError("its file: URL is not valid; write file:///folder/name.png")
    return _unquote(url.path)


def _unquote(path: str) -> str:
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())
    return raw.decode("utf-8", "surrogateescape")
