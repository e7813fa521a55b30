"""The bytes behind a picture's URL. Only ``data:`` URLs are read here; what fetches others plugs in beside it.

Faults are ``SourceError`` with a safe message; ``api.media.resolver`` adds which message and part it was.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

_URL_ALPHABET: Final = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE: Final = b" \t\r\n\f\v"


class SourceError(Exception):
    """A URL that cannot be read. ``message`` is safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Fetcher(Protocol):
    """Reads the bytes of an ``http(s)`` URL."""

    async def fetch(self, url: str) -> bytes:
        """Return the body.

        Raises:
            SourceError: when it is refused, fails, or takes too long.
        """
        ...


class NoFetcher:
    """The fetcher of a server on which URL input is off."""

    async def fetch(self, url: str) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Refuse.

        Raises:
            SourceError: always.
        """
        raise SourceError("image input by http(s) URL is not enabled on this server; send the image as a data: URL")


def is_data_url(url: str) -> bool:
    """Tell whether the picture is inside the URL itself."""
    return url[:5].lower() == "data:"


def scheme_of(url: str) -> str:
    """Return the scheme in lower case; empty when there is none."""
    scheme, colon, _ = url[:32].partition(":")
    return scheme.strip().lower() if colon else ""


def decode_data_url(url: str, *, max_bytes: int) -> bytes:
    """Return the bytes of a ``data:`` URL. The media type is not trusted: the content decides the format.

    Raises:
        SourceError: when the URL is damaged, empty or too large.
    """
    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise SourceError("the data: URL has no comma between its media type and its data")
    # Four base64 characters carry three bytes; white space and padding only make the text longer, so give them room.
    if len(payload) > max_bytes * 2:
        raise SourceError(f"the image is larger than {max_bytes} bytes")
    is_base64 = header.rstrip().lower().endswith(";base64")
    data = decode_base64(payload) if is_base64 else unquote_to_bytes(payload)
    if len(data) > max_bytes:
        raise SourceError(f"the image is larger than {max_bytes} bytes")
    if not data:
        raise SourceError("the data: URL holds no data")
    return data


def decode_base64(text: str) -> bytes:
    """Decode base64 in either alphabet, with or without padding, white space or percent escapes.

    Raises:
        SourceError: when other characters are in it, or characters are missing.
    """
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise SourceError("the image is not valid base64") from error
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    raw = raw.translate(_URL_ALPHABET, _WHITE_SPACE).rstrip(b"=")
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SourceError("the image is not valid base64") from error
