"""Damage of PNG files that Pillow does not see: wrong checksums, chunks that leave the file, rows that are missing."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from api.media.header import Bytes, HeaderError

MAX_CHUNKS: Final = 100_000
_FIRST_CHUNK: Final = 8
_FRAME_BYTES: Final = 12
"""Length, kind and checksum of a chunk."""
_HEADER: Final = struct.Struct(">IIBBBBB")
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel, by colour type."""
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row, and steps of each pass of an interlaced picture."""
_STEP_BYTES: Final = 64 * 1024


def pixel_chunks(data: Bytes) -> list[tuple[int, int]]:
    """Return where the compressed pixels lie: (start, end) of each part.

    Raises:
        HeaderError: a chunk that matters has the wrong checksum or ends beyond the file, or there are no pixels.
    """
    found: list[tuple[int, int]] = []
    place = _FIRST_CHUNK
    for _ in range(MAX_CHUNKS):
        frame = data[place : place + 8]
        if len(frame) < 8 or frame[4:] == b"IEND":  # noqa: PLR2004 - length and kind; a missing end harms nobody
            break
        (length,), kind = struct.unpack(">I", frame[:4]), frame[4:]
        # Capital letters mark what no reader may pass over.
        if kind[:1].isupper():
            _check(data, place, length)
            if kind == b"IDAT":
                found.append((place + 8, place + 8 + length))
        place += _FRAME_BYTES + length
    if not found:
        raise HeaderError
    return found


def is_complete(data: Bytes, chunks: list[tuple[int, int]]) -> bool:
    """Tell whether the compressed data holds all rows that the header promises; costs about as much as decoding."""
    missing = _raw_bytes(data)
    inflater = zlib.decompressobj()
    try:
        for start, end in chunks:
            for place in range(start, end, _STEP_BYTES):
                part = data[place : min(place + _STEP_BYTES, end)]
                while part and missing > 0:
                    missing -= len(inflater.decompress(part, _STEP_BYTES))
                    part = inflater.unconsumed_tail
    except zlib.error:
        return False
    return missing <= 0


def is_interlaced(data: Bytes) -> bool:
    """Tell whether the rows come in seven passes."""
    return data[28:29] == b"\1"


def _check(data: Bytes, place: int, length: int) -> None:
    end = place + 8 + length
    wanted = data[end : end + 4]
    # The whole chunk may be megabytes; a copy of it in steps stays in the processor's cache.
    checksum = 0
    for start in range(place + 4, end, _STEP_BYTES):
        checksum = zlib.crc32(data[start : min(start + _STEP_BYTES, end)], checksum)
    if len(wanted) < 4 or checksum != int.from_bytes(wanted, "big"):  # noqa: PLR2004 - a checksum's size
        raise HeaderError


def _raw_bytes(data: Bytes) -> int:
    """Return the size of all rows, each with its filter byte, before compression."""
    width, height, depth, kind, *_ = _HEADER.unpack(data[16:29])
    bits = depth * _SAMPLES.get(kind, 1)
    passes = _ADAM7 if is_interlaced(data) else ((0, 0, 1, 1),)
    total = 0
    for x, y, dx, dy in passes:
        columns, rows = len(range(x, width, dx)), len(range(y, height, dy))
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total
