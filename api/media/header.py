"""What a picture file says of itself before anything is decoded: its format, its width and its height.

Pure, and reads only the few bytes that matter. ``api.media.decode`` decides what is acceptable; libraries that allocate
memory for what a header promises are called after that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Protocol

MAX_SEGMENTS: Final = 4096
"""Segments before a JPEG's frame header. Real files have a few dozen at most."""

_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
)
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_SCAN: Final = 0xDA
_END: Final = 0xD9
_VP8_START_CODE: Final = b"\x9d\x01\x2a"
_VP8L_SIGNATURE: Final = 0x2F
_CORE_HEADER: Final = 12
"""Size of BMP's oldest header, whose sides have 16 bits each."""


class Bytes(Protocol):
    """A file's bytes, in memory or mapped."""

    def __len__(self) -> int:
        """Return the file's size."""
        ...

    def __getitem__(self, place: slice, /) -> bytes:
        """Return a copy of a part."""
        ...

    def find(self, part: bytes, start: int, /) -> int:
        """Return where a part begins, -1 when it is absent."""
        ...


class HeaderError(Exception):
    """The header is cut short or contradicts itself."""


class UnknownFormatError(Exception):
    """The first bytes are of no format that is accepted."""


@dataclass(frozen=True, slots=True)
class Header:
    """A picture's own claims. ``format`` is Pillow's name; ``is_progressive`` is for JPEG only."""

    format: str
    width: int
    height: int
    is_progressive: bool = False


def sniff_format(data: Bytes) -> str:
    """Return the format by the first bytes alone.

    Raises:
        UnknownFormatError: when it is none that is accepted.
    """
    start = data[:12]
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if start.startswith(b"RIFF") and start[8:] == b"WEBP":
        return "WEBP"
    raise UnknownFormatError


def read_header(data: Bytes) -> Header:
    """Return format and size.

    Raises:
        UnknownFormatError: it is no picture of an accepted format.
        HeaderError: the header is damaged.
    """
    name = sniff_format(data)
    try:
        if name == "JPEG":
            return _jpeg(data)
        width, height = {"PNG": _png, "GIF": _gif, "BMP": _bmp, "WEBP": _webp}[name](data)
    except (struct.error, IndexError) as error:
        raise HeaderError from error
    return Header(name, width, height)


def has_many_scans(data: Bytes, limit: int) -> bool:
    """Tell whether a JPEG has more than ``limit`` scans: each one costs a pass over the whole picture."""
    place = 0
    for _ in range(limit + 1):
        place = data.find(b"\xff\xda", place) + 2
        if place < 2:  # noqa: PLR2004 - not found: -1 + 2
            return False
    return True


def _jpeg(data: Bytes) -> Header:
    place = 2
    for _ in range(MAX_SEGMENTS):
        lead, marker = data[place : place + 2]
        if lead != 0xFF:  # noqa: PLR2004 - every marker begins so
            raise HeaderError
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            place += 1
        elif marker in _NO_LENGTH:
            place += 2
        elif marker in (_START_OF_SCAN, _END):
            raise HeaderError
        elif marker in _FRAMES:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return Header("JPEG", width, height, marker in _PROGRESSIVE)
        else:
            (length,) = struct.unpack(">H", data[place + 2 : place + 4])
            place += 2 + max(length, 2)
    raise HeaderError


def _png(data: Bytes) -> tuple[int, int]:
    length, kind, width, height = struct.unpack(">I4sII", data[8:24])
    if length != 13 or kind != b"IHDR":  # noqa: PLR2004 - the only length that this chunk may have
        raise HeaderError
    return width, height


def _gif(data: Bytes) -> tuple[int, int]:
    width, height = struct.unpack("<HH", data[6:10])
    return width, height


def _bmp(data: Bytes) -> tuple[int, int]:
    (size,) = struct.unpack("<I", data[14:18])
    if size == _CORE_HEADER:
        width, height = struct.unpack("<HH", data[18:22])
        return width, height
    width, height = struct.unpack("<ii", data[18:26])
    # A negative height means that the first row is the top one.
    return width, abs(height)


def _webp(data: Bytes) -> tuple[int, int]:
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        width, height = (int.from_bytes(part, "little") + 1 for part in (body[4:7], body[7:10]))
    elif kind == b"VP8 " and body[3:6] == _VP8_START_CODE:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:10]))
    elif kind == b"VP8L" and body[0] == _VP8L_SIGNATURE:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise HeaderError
    return width, height
