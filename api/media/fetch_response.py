"""Reads one HTTP/1.1 answer from a server that may be hostile: bounded headers, bounded body, bounded inflation.

Only turns bytes into a head and a body; connections and deadlines are ``api.media.fetch``'s. The parser is llhttp, in
C, so that ten thousand tiny chunks cost microseconds each and not the event loop.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

import httptools

from api.media.errors import SourceError

MAX_HEAD_BYTES: Final = 64 * 1024
STEP_BYTES: Final = 64 * 1024
"""Bytes inflated at a time: about a tenth of a millisecond."""

_FIRST_FINAL_STATUS: Final = 200
_ANY_ZLIB_FORM: Final = 32 + zlib.MAX_WBITS
_INFLATED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_BROKEN: Final = "the server at its URL sent a broken answer"


class ResponseParser:
    """One answer, fed piece by piece. Interim answers (1xx) are skipped; what follows the body is ignored."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_head_complete = False
        self.is_complete = False
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._head_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take what was received and return the part of the body in it, without chunking.

        Raises:
            SourceError: when it is not HTTP, or its head is too large.
        """
        if not self.is_head_complete:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.is_complete:
                raise SourceError(_BROKEN) from error
        if not self.is_head_complete and self._head_bytes > MAX_HEAD_BYTES:
            raise SourceError(_BROKEN)
        body = b"".join(self._body)
        self._body.clear()
        return body

    def end(self) -> None:
        """Take notice that the server closed the connection.

        Raises:
            SourceError: when the answer is not complete.
        """
        if not self.is_head_complete:
            raise SourceError(_BROKEN)
        if not self.is_complete and ("content-length" in self.headers or "transfer-encoding" in self.headers):
            raise SourceError("the server at its URL closed the connection before the image was complete")
        self.is_complete = True

    def content_length(self) -> int | None:
        """Return the body's declared size."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the first of each header of the final answer (called by the parser)."""
        if not self.is_head_complete:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("utf-8", "replace"))

    def on_headers_complete(self) -> None:
        """Note the end of a head (called by the parser)."""
        status = self._parser.get_status_code()
        if self.is_head_complete:
            return
        if status < _FIRST_FINAL_STATUS:
            self.headers.clear()
            return
        self.status = status
        self.is_head_complete = True

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body (called by the parser)."""
        if not self.is_complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Note the end of an answer (called by the parser)."""
        self.is_complete = self.is_head_complete


class Inflater:
    """Undoes the content encoding of servers that compress although they were asked not to."""

    def __init__(self, encoding: str | None) -> None:
        """Take the value of ``Content-Encoding``.

        Raises:
            SourceError: for an encoding that is not accepted.
        """
        name = (encoding or "").strip().lower()
        if name not in {"", "identity"} | _INFLATED:
            raise SourceError("the server at its URL compresses the image in a way that is not accepted (only gzip)")
        self._zlib = zlib.decompressobj(_ANY_ZLIB_FORM) if name in _INFLATED else None

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield what the data holds, at most ``STEP_BYTES`` at a time.

        Raises:
            SourceError: when it is damaged.
        """
        if self._zlib is None:
            yield data
            return
        try:
            is_full = True
            # A full step may leave output behind although all input is taken.
            while (data or is_full) and not self._zlib.eof:
                part = self._zlib.decompress(data, STEP_BYTES)
                data = self._zlib.unconsumed_tail
                is_full = len(part) == STEP_BYTES
                yield part
        except zlib.error as error:
            raise SourceError(_BROKEN) from error

    def end(self) -> None:
        """Take notice of the end of the data.

        Raises:
            SourceError: when the compressed data stopped in the middle.
        """
        if self._zlib is not None and not self._zlib.eof:
            raise SourceError("the server at its URL closed the connection before the image was complete")
