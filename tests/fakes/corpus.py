"""Picture files that people send and files that attackers send, made by code, each with what must become of it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import PIL.Image

from tests.fakes.pictures import BLUE, RED, encode

SIDE = 64
TEAL = (0, 128, 128)


@dataclass(frozen=True)
class Case:
    """A file; ``refusal`` is a part of the reason why it is refused, None for a picture that is seen."""

    name: str
    data: bytes
    refusal: str | None = None
    colour: tuple[int, int, int] = TEAL
    """Of a picture that is seen, the colour of its middle."""


def png(size: tuple[int, int], depth: int, kind: int, pixel: bytes, **options: Any) -> bytes:
    """Return a PNG of one colour, chunk by chunk.

    Args:
        size: width and height in the header.
        depth: bits per sample.
        kind: PNG's colour type.
        pixel: one pixel, of whole bytes.
        options: ``rows`` that the data really has, ``interlaced``, ``before`` and ``after`` the data: more chunks.
    """
    width, height = size
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, bool(options.get("interlaced")))
    if options.get("interlaced"):
        data = b"".join(_adam7(width, height, pixel))
    else:
        data = (b"\0" + pixel * width) * options.get("rows", height)
    parts = [(b"IHDR", header), *options.get("before", ()), (b"IDAT", zlib.compress(data)), *options.get("after", ())]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in (*parts, (b"IEND", b"")))


def _adam7(width: int, height: int, pixel: bytes) -> Iterator[bytes]:
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        yield (b"\0" + pixel * len(range(x, width, dx))) * len(range(y, height, dy))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def photo(size: tuple[int, int] = (SIDE * 2, SIDE * 2)) -> PIL.Image.Image:
    """Return a picture with detail everywhere and teal in its middle."""
    noise = [PIL.Image.effect_noise(size, 60) for _ in range(3)]
    picture = PIL.Image.merge("RGB", noise)
    picture.paste(TEAL, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    return picture


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "hidden")
    return file.getvalue()


def _plain(mode: str, colour: Any, kind: str, **options: Any) -> bytes:
    return encode(PIL.Image.new(mode, (SIDE, SIDE), colour), kind, **options)


def _with_exif(exif: bytes) -> bytes:
    return encode(PIL.Image.new("RGB", (SIDE, SIDE), TEAL), "JPEG", quality=95, exif=b"Exif\0\0" + exif)


def good() -> Iterator[Case]:
    """Yield pictures that must be seen."""
    yield from _good_jpeg()
    yield from _good_png()
    frames = [PIL.Image.new("RGB", (SIDE, SIDE), colour) for colour in (TEAL, RED, BLUE)]
    later = {"save_all": True, "append_images": frames[1:]}
    for kind in ("GIF", "WEBP"):
        yield Case(f"{kind.lower()}-plain", encode(frames[0], kind))
        yield Case(f"{kind.lower()}-animated", encode(frames[0], kind, **later))
    yield Case("gif-transparent", _plain("P", 0, "GIF", transparency=0), None, (255, 255, 255))
    yield Case("webp-lossless", _plain("RGB", TEAL, "WEBP", lossless=True))
    yield Case("webp-transparent", _plain("RGBA", (*RED, 0), "WEBP", lossless=True), None, (255, 255, 255))
    yield Case("bmp-24", _plain("RGB", TEAL, "BMP"))
    yield Case("bmp-8-palette", _plain("P", 0, "BMP"), None, (0, 0, 0))
    yield Case("bmp-grey", _plain("L", 77, "BMP"), None, (77, 77, 77))
    yield Case("bmp-1", _plain("1", 1, "BMP"), None, (255, 255, 255))
    yield Case("bmp-32", _plain("RGBA", (*TEAL, 255), "BMP"))
    bottom_up = _plain("RGB", TEAL, "BMP")
    yield Case("bmp-top-down", _patched(bottom_up, 22, struct.pack("<i", -SIDE)))
    core = struct.pack("<IHHHH", 12, SIDE, SIDE, 1, 24) + bytes(reversed(TEAL)) * SIDE * SIDE
    yield Case("bmp-os2", b"BM" + struct.pack("<IHHI", 14 + len(core), 0, 0, 26) + core)
    for width, height in ((1, 1), (1, 700), (700, 1), (1, 9000), (3, 2000), (5000, 2)):
        yield Case(f"png-{width}x{height}", encode(PIL.Image.new("RGB", (width, height), TEAL)))


def _good_jpeg() -> Iterator[Case]:
    big = photo((1600, 1200))
    for name, options in {
        "jpeg": {},
        "jpeg-444": {"subsampling": 0},
        "jpeg-422": {"subsampling": 1},
        "jpeg-progressive": {"progressive": True},
        "jpeg-restarts": {"restart_marker_rows": 1},
        "jpeg-optimised": {"optimize": True, "quality": 30},
    }.items():
        yield Case(name, encode(big, "JPEG", **options))
    yield Case("jpeg-grey", encode(PIL.Image.new("L", (1111, 777), 90), "JPEG"), None, (90, 90, 90))
    yield Case("jpeg-cmyk", _plain("CMYK", (255, 127, 127, 0), "JPEG", quality=95), None, (0, 128, 128))
    small = _plain("RGB", TEAL, "JPEG", quality=95)
    yield Case("jpeg-with-film", small + b"\0\0\0\x18ftypmp42" + bytes(1000))
    yield Case("jpeg-with-second-picture", encode(PIL.Image.new("RGB", (SIDE, SIDE), TEAL), "MPO", save_all=True,
                                                  append_images=[PIL.Image.new("RGB", (SIDE, SIDE), RED)]))  # fmt: skip
    yield Case("jpeg-with-icc", _plain("RGB", TEAL, "JPEG", icc_profile=bytes(3000)))
    yield Case("jpeg-exif-garbage", _with_exif(b"II*\0\xff\xff\xff\xff" + bytes(range(256))))
    yield Case(
        "jpeg-exif-far-offset", _with_exif(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\x7f\xff\xff\xff")
    )
    yield Case("jpeg-exif-turn-99", _with_exif(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0"))


def _good_png() -> Iterator[Case]:
    size = (SIDE, SIDE)
    yield Case("png-8", png(size, 8, 2, bytes(TEAL)))
    yield Case("png-16", png(size, 16, 2, b"".join(bytes((value, value)) for value in TEAL)))
    yield Case("png-interlaced", png(size, 8, 2, bytes(TEAL), interlaced=True))
    yield Case("png-alpha", png(size, 8, 6, bytes((*RED, 0))), None, (255, 255, 255))
    yield Case("png-alpha-half", png(size, 8, 6, bytes((0, 0, 0, 128))), None, (127, 127, 127))
    yield Case("png-alpha-16", png(size, 16, 6, b"\xff\xff\0\0\0\0\0\0"), None, (255, 255, 255))
    yield Case("png-grey", png(size, 8, 0, b"\x40"), None, (64, 64, 64))
    yield Case("png-grey-16", png(size, 16, 0, b"\x80\0"), None, (128, 128, 128))
    yield Case("png-grey-alpha", png(size, 8, 4, b"\0\0"), None, (255, 255, 255))
    palette = (b"PLTE", bytes((*RED, *TEAL)))
    yield Case("png-palette", png(size, 8, 3, b"\1", before=[palette]))
    yield Case("png-palette-clear", png(size, 8, 3, b"\1", before=[palette, (b"tRNS", b"\xff\0")]), None, (255,) * 3)
    yield Case("png-colour-key", png(size, 8, 2, bytes(RED), before=[(b"tRNS", b"\0\xff\0\0\0\0")]), None, (255,) * 3)
    yield Case("png-1-bit", _plain("1", 1, "PNG"), None, (255, 255, 255))
    yield Case("png-more-data-than-rows", png(size, 8, 2, bytes(TEAL), rows=50_000))
    yield Case("png-animated", encode(PIL.Image.new("RGB", size, TEAL), "PNG", save_all=True,
                                      append_images=[PIL.Image.new("RGB", size, RED)]))  # fmt: skip


def hostile() -> Iterator[Case]:
    """Yield files that must be refused with a reason."""
    yield from _no_pictures()
    yield from _bombs()
    yield from _truncated()
    yield from _polyglots()
    yield from _damaged()


def _no_pictures() -> Iterator[Case]:
    for name, data in {
        "empty": b"",
        "text": b"hello",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "tiff": _plain("RGB", TEAL, "TIFF"),
        "jpeg-2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "psd": b"8BPS\0\1" + bytes(100),
        "ico": b"\0\0\1\0\1\0" + bytes(100),
        "avif": b"\0\0\0\x20ftypavif" + bytes(100),
        "pdf": b"%PDF-1.7\n" + bytes(100),
        "zip": _zip(),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(100),
        "ppm": b"P6\n1 1\n255\n\0\0\0",
        "postscript-behind-space": b" \x89PNG\r\n\x1a\n",
        "wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
    }.items():
        yield Case(f"{name}-is-no-picture", data, "not a JPEG")


def _bombs() -> Iterator[Case]:
    limit = "at most"
    yield Case("png-bomb-header", png((50_000, 50_000), 8, 2, bytes(TEAL), rows=1), limit)
    yield Case("png-bomb-real", encode(PIL.Image.new("1", (20_000, 20_000))), limit)
    yield Case("png-bomb-side", png((2**31 - 1, 1), 8, 0, b"", rows=1), limit)
    inflating = b"a\0\0" + zlib.compress(bytes(80 << 20))
    for kind in (b"zTXt", b"iCCP"):
        yield Case(f"png-bomb-{kind.decode()}", png((8, 8), 8, 0, b"\0", before=[(kind, inflating)]), "damaged")
    gif = _plain("P", 0, "GIF")
    yield Case("gif-bomb-screen", _patched(gif, 6, b"\xff\xff\xff\xff"), limit)
    frame = gif.index(b"\x2c\0\0\0\0")
    yield Case("gif-bomb-frame", _patched(gif, frame + 5, b"\xff\xff\xff\xff"), limit)
    yield Case("gif-bomb-offset", _patched(gif, frame + 1, b"\xff\xff\xff\xff"), limit)
    extended = _plain("RGBA", (*TEAL, 9), "WEBP")
    yield Case("webp-bomb-canvas", _patched(extended, 24, b"\xff\xff\xff\xff\xff\xff"), limit)
    lossless = _plain("RGB", TEAL, "WEBP", lossless=True)
    yield Case("webp-bomb-lossless", _patched(lossless, lossless.index(b"VP8L") + 9, b"\xff\xff\xff\x0f"), limit)
    lossy = _plain("RGB", TEAL, "WEBP")
    yield Case("webp-bomb-lossy", _patched(lossy, lossy.index(b"\x9d\x01\x2a") + 3, b"\xff\x3f\xff\x3f"), limit)
    bmp = _plain("RGB", TEAL, "BMP")
    yield Case("bmp-bomb", _patched(bmp, 18, struct.pack("<ii", 100_000, 100_000)), limit)
    jpeg = _plain("RGB", TEAL, "JPEG")
    size = jpeg.index(b"\xff\xc0") + 5
    yield Case("jpeg-bomb", _patched(jpeg, size, b"\xff\xff\xff\xff"), limit)
    progressive = encode(photo(), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield Case("jpeg-bomb-scans", progressive[:-2] + scan * 300 + b"\xff\xd9", "scans")
    yield Case("png-ribbon", encode(PIL.Image.new("1", (20_000, 1))), "factor")
    yield Case("png-no-width", png((0, 8), 8, 0, b"", rows=8), "no pixels")
    yield Case("jpeg-no-height", _patched(jpeg, size, b"\0\0"), "no pixels")
    yield Case("gif-no-size", _patched(gif, 6, bytes(4)), "no pixels")
    yield Case("bmp-negative-width", _patched(bmp, 18, struct.pack("<i", -SIDE)), "no pixels")


def _truncated() -> Iterator[Case]:
    files = {kind: encode(photo(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")}
    files["JPEG-progressive"] = encode(photo(), "JPEG", progressive=True)
    files["WEBP-lossless"] = encode(photo(), "WEBP", lossless=True)
    for kind, data in files.items():
        for percent in (1, 10, 50, 90):
            yield Case(f"{kind.lower()}-cut-at-{percent}%", data[: max(12, len(data) * percent // 100)], "damaged")


def _polyglots() -> Iterator[Case]:
    both = "at the same time"
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        yield Case(f"{kind.lower()}-and-zip", _plain("RGB", TEAL, kind) + _zip(), both)
    script = b"<script>alert(1)</script>"
    yield Case("jpeg-and-page", _plain("RGB", TEAL, "JPEG", comment=script), both)
    yield Case("gif-and-page", _plain("P", 0, "GIF", comment=script), both)
    yield Case("png-and-php", png((8, 8), 8, 0, b"\0", before=[(b"tEXt", b"a\0<?php system($_GET[0]);")]), both)
    yield Case("jpeg-and-pdf", _plain("RGB", TEAL, "JPEG", comment=b"%PDF-1.4\n1 0 obj"), both)
    yield Case("png-named-jpeg", b"\xff\xd8\xff\xe0" + _plain("RGB", TEAL, "PNG"), "damaged")
    yield Case("gif-and-javascript", b"GIF89a/*" + _plain("P", 0, "GIF")[8:] + b"*/=1;alert(1)", both)


def _damaged() -> Iterator[Case]:
    data = encode(photo(), "PNG")
    body = data.index(b"IDAT") + 4
    yield Case("png-wrong-checksum", _patched(data, body + 500, b"\0\0\0\0"), "damaged")
    yield Case("png-no-data", data[: body - 8] + _chunk(b"IEND", b""), "damaged")
    yield Case("png-rows-missing", png((SIDE, SIDE), 8, 2, bytes(TEAL), rows=10), "damaged")
    yield Case("png-foreign-kind", png((8, 8), 8, 5, b"\0"), "damaged")
    yield Case("png-foreign-depth", png((8, 8), 7, 0, b"\0"), "damaged")
    yield Case("png-chunk-length", _patched(data, body - 8, b"\x7f\xff\xff\xff"), "damaged")
    gif = encode(photo(), "GIF")
    yield Case("gif-no-frame", gif[:13] + b"\x3b", "damaged")
    jpeg = encode(photo(), "JPEG")
    yield Case("jpeg-no-tables", jpeg[:2] + jpeg[jpeg.index(b"\xff\xc0") :], "damaged")
    yield Case("jpeg-no-frame", jpeg[:2] + jpeg[jpeg.index(b"\xff\xda") :], "damaged")
    yield Case("jpeg-endless-segments", b"\xff\xd8" + b"\xff\xe1\0\2" * 100_000, "damaged")
    yield Case("jpeg-endless-fill", b"\xff\xd8" + b"\xff" * 1_000_000, "damaged")
    webp = encode(photo(), "WEBP")
    yield Case("webp-noise", webp[:40] + bytes(range(256)) * 4, "damaged")
    yield Case("webp-no-frame", b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x3f\0\0\x3f\0\0", "damaged")
    bmp = _plain("RGB", TEAL, "BMP")
    yield Case("bmp-data-elsewhere", _patched(bmp, 10, b"\xff\xff\xff\x7f"), "damaged")
    yield Case("bmp-foreign-depth", _patched(bmp, 28, b"\x0b\0"), "damaged")
    yield Case("bmp-foreign-header", _patched(bmp, 14, b"\x11\0\0\0"), "damaged")
