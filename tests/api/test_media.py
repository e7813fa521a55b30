"""Pictures: sizes, formats, faults, and how they reach the engine."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from PIL.Image import Exif

from api.media.decode import MAX_PIXELS, Budget, DecodeError, decode_image
from api.media.size import BUDGETS, UnsizableError, fit, smallest_lossless_budget
from api.media.source import SourceError, decode_data_url
from engine.core import Image
from tests.api.conftest import ScriptedServer
from tests.api.test_bad_input import check_error

ROWS = json.loads((Path(__file__).parent.parent / "data" / "image_tokens.json").read_text())["rows"]
SMALL = Budget(70)
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(picture: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    """Return a file as a ``data:`` URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def pixel(image: Image, x: float, y: float) -> tuple[int, ...]:
    """Return the pixel at a place given as shares of width and height."""
    column, row = int(x * (image.width - 1)), int(y * (image.height - 1))
    start = (row * image.width + column) * 3
    return tuple(image.rgb[start : start + 3])


def is_close(left: tuple[int, ...], right: tuple[int, ...], tolerance: int = 6) -> bool:
    """Tell whether two colours are the same up to compression."""
    return all(abs(a - b) <= tolerance for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("row", ROWS, ids=[f"{row['w']}x{row['h']}" for row in ROWS])
def test_sizes_are_the_model_family_s(row: dict[str, Any], budget: int) -> None:
    """Width, height and token count are those of the reference for every size and budget."""
    wanted = row[str(budget)]
    width, height = fit(row["w"], row["h"], budget)
    assert (width, height) == (wanted["resized_w"], wanted["resized_h"])
    assert Image(b"", width, height).soft_tokens == wanted["tokens"]


def test_extreme_shapes() -> None:
    """A side never vanishes while the other fits; a shape that fits nowhere is an error, never a crash."""
    for width in (1, 7, 48, 5000, 30_000):
        for height in (1, 9, 5000, 30_000):
            try:
                sides = fit(width, height, 70)
            except UnsizableError:
                continue
            assert all(side >= 48 and side % 48 == 0 for side in sides)


def test_lossless_budget_is_the_smallest_that_shrinks_nothing() -> None:
    """``original`` takes the first budget at which neither side shrinks, the largest for big pictures."""
    assert smallest_lossless_budget(384, 384) == 70
    assert smallest_lossless_budget(400, 400) == 140
    assert smallest_lossless_budget(4000, 3000) == 1120


def test_every_format_is_decoded() -> None:
    """JPEG, PNG, GIF, WebP and BMP are known by their content, whatever the URL says."""
    picture = PIL.Image.new("RGB", (96, 48), RED)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        image = decode_image(encode(picture, kind), SMALL)
        assert (image.width, image.height) == fit(96, 48, 70)
        assert len(image.rgb) == image.width * image.height * 3
        assert is_close(pixel(image, 0.5, 0.5), RED)


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (PIL.Image.new("L", (48, 48), 100), (100, 100, 100)),
        (PIL.Image.new("1", (48, 48), 1), WHITE),
        (PIL.Image.new("RGBA", (48, 48), (255, 0, 0, 0)), WHITE),
        (PIL.Image.new("RGBA", (48, 48), (0, 0, 0, 128)), (127, 127, 127)),
        (PIL.Image.new("LA", (48, 48), (0, 0)), WHITE),
        (PIL.Image.new("I;16", (48, 48), 0x8000), (128, 128, 128)),
        (PIL.Image.new("RGB", (48, 48), BLUE).convert("P"), BLUE),
    ],
    ids=["grey", "bilevel", "transparent", "half", "grey-alpha", "16-bit", "palette"],
)
def test_modes_become_rgb_over_white(picture: PIL.Image.Image, wanted: tuple[int, ...]) -> None:
    """Every pixel format shows what a person would see on white paper."""
    assert is_close(pixel(decode_image(encode(picture), SMALL), 0.5, 0.5), wanted)


def test_transparent_palette_and_cmyk() -> None:
    """A palette's transparent colour is white; CMYK is converted."""
    palette = PIL.Image.new("P", (48, 48), 0)
    palette.putpalette([255, 0, 0])
    assert is_close(pixel(decode_image(encode(palette, "GIF", transparency=0), SMALL), 0.5, 0.5), WHITE)
    cmyk = PIL.Image.new("CMYK", (48, 48), (0, 255, 255, 0))
    assert is_close(pixel(decode_image(encode(cmyk, "JPEG"), SMALL), 0.5, 0.5), RED, tolerance=12)


def test_first_frame_of_an_animation() -> None:
    """Of an animation the first frame counts."""
    frames = [PIL.Image.new("RGB", (48, 48), colour) for colour in (RED, BLUE)]
    for kind in ("GIF", "WEBP"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert is_close(pixel(decode_image(data, SMALL), 0.5, 0.5), RED)


def test_orientation_is_applied() -> None:
    """A photograph that was taken sideways stands upright, sides exchanged."""
    picture = PIL.Image.new("RGB", (200, 100), RED)
    picture.paste(BLUE, (0, 0, 100, 100))
    exif = Exif()
    exif[0x0112] = 6
    image = decode_image(encode(picture, "JPEG", exif=exif, quality=95), SMALL)
    assert (image.width, image.height) == fit(100, 200, 70)
    assert is_close(pixel(image, 0.5, 0.1), BLUE)
    assert is_close(pixel(image, 0.5, 0.9), RED)


def _large_header() -> bytes:
    """Return a PNG whose header promises more pixels than are accepted."""
    data = bytearray(encode(PIL.Image.new("1", (8, 8))))
    side = int(MAX_PIXELS**0.5) + 1
    data[16:24] = side.to_bytes(4, "big") * 2
    import zlib  # noqa: PLC0415 - only the checksum of this header

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JPEG"),
        (b"hello", "not a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (b"GIF89a", "damaged"),
        (b"BM", "damaged"),
        (b"RIFF\x00\x00\x00\x00WEBP", "damaged"),
        (encode(PIL.Image.effect_noise((64, 64), 50))[:-200], "damaged"),
        (encode(PIL.Image.effect_noise((64, 64), 50), "JPEG")[:300], "damaged"),
        (_large_header(), "pixels"),
        (encode(PIL.Image.new("1", (2000, 1))), "factor"),
    ],
)
def test_unusable_files_are_refused(data: bytes, reason: str) -> None:
    """What is no complete picture of a sane size is refused with the reason."""
    with pytest.raises(DecodeError, match=reason):
        decode_image(data, SMALL)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,aGVsbG8=",
        "DATA:image/png;BASE64,aGVsbG8=",
        "data:;base64,aGVsbG8",
        "data:image/png;charset=x;base64,aGVs\n bG8=\r\n",
        "data:image/png;base64,aGVsbG8%3D",
        "data:text/plain,hello",
    ],
)
def test_data_urls_in_every_spelling(url: str) -> None:
    """Case, padding, white space and percent escapes do not matter."""
    assert decode_data_url(url, max_bytes=100) == b"hello"


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64",
        "data:;base64,",
        "data:;base64,a",
        "data:;base64,\u00e9",
        "data:;base64,aa*a",
        "data:;base64," + "a" * 400,
    ],
)
def test_damaged_data_urls_are_refused(url: str) -> None:
    """A data: URL without data, with foreign characters, or too large is refused."""
    with pytest.raises(SourceError):
        decode_data_url(url, max_bytes=100)


def ask(*parts: Any) -> dict[str, Any]:
    """Return a request with these content parts."""
    return {"messages": [{"role": "user", "content": list(parts)}]}


PNG = encode(PIL.Image.new("RGB", (64, 48), BLUE))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": data_url(PNG)}},
        {"type": "image_url", "image_url": data_url(PNG)},
        {"type": "input_image", "image_url": data_url(PNG)},
        {"type": "image", "image": data_url(PNG)},
        {"type": "image", "url": data_url(PNG)},
        {"type": "image", "base64": base64.b64encode(PNG).decode()},
        {"type": "image", "image": base64.b64encode(PNG).decode()},
    ],
)
def test_every_spelling_of_a_picture_reaches_the_engine(server: ScriptedServer, part: dict[str, Any]) -> None:
    """All forms give the same pixels, at their place among the texts, with as many ids as soft tokens."""
    body = server.post(ask({"type": "text", "text": "A"}, part, {"type": "text", "text": "B"}))
    assert body.status_code == 200, body.text
    request = server.core.requests[-1]
    (image,) = request.images
    assert (image.width, image.height) == fit(64, 48, 280)
    assert is_close(tuple(image.rgb[:3]), BLUE)
    special = server.tokenizer.special
    assert request.prompt_ids.count(special.image) == image.soft_tokens
    assert request.prompt_ids.count(special.image_open) == 1
    usage = body.json()["usage"]
    assert usage["prompt_tokens"] == len(request.prompt_ids)
    assert usage["prompt_tokens_details"]["image_tokens"] == image.soft_tokens


@pytest.mark.parametrize(
    ("fields", "extra", "budget"),
    [
        ({}, {}, 280),
        ({"detail": "auto"}, {}, 280),
        ({"detail": "low"}, {}, 70),
        ({"detail": "high"}, {}, 1120),
        ({"detail": "original"}, {}, 70),
        ({"max_soft_tokens": 560}, {}, 560),
        ({}, {"mm_processor_kwargs": {"max_soft_tokens": 140}}, 140),
        ({"detail": "low"}, {"mm_processor_kwargs": {"max_soft_tokens": 140}}, 70),
    ],
)
def test_detail_is_a_token_budget(
    server: ScriptedServer, fields: dict[str, Any], extra: dict[str, Any], budget: int
) -> None:
    """``detail`` and ``max_soft_tokens`` choose how many tokens the picture takes."""
    part = {"type": "image_url", "image_url": {"url": data_url(PNG), **fields}}
    assert server.post({**ask(part), **extra}).status_code == 200
    image = server.core.requests[-1].images[0]
    assert (image.width, image.height) == fit(64, 48, budget)


def test_pictures_keep_their_order(server: ScriptedServer) -> None:
    """Pictures of several messages, a tool's result included, arrive in order."""

    def part(colour: tuple[int, int, int]) -> dict[str, Any]:
        url = data_url(encode(PIL.Image.new("RGB", (48, 48), colour)))
        return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}

    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": [part(RED), part(BLUE)]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "see"}, part(WHITE)]},
    ]
    assert server.post({"messages": messages}).status_code == 200
    colours = [tuple(image.rgb[:3]) for image in server.core.requests[-1].images]
    assert all(is_close(got, want) for got, want in zip(colours, (RED, BLUE, WHITE), strict=True))


def test_one_picture_too_many(server: ScriptedServer) -> None:
    """One more than the limit is a 400 with both numbers, before any is decoded."""
    part = {"type": "image_url", "image_url": {"url": "data:,broken"}}
    response = server.post(ask(*[part] * 6))
    check_error(response, 400, "messages", "too_many_images")
    assert "5" in response.json()["error"]["message"]
    assert "6" in response.json()["error"]["message"]


def test_broken_picture_names_its_part(server: ScriptedServer) -> None:
    """The first part that cannot be used is named, even when others are fine."""
    good = {"type": "image_url", "image_url": {"url": data_url(PNG)}}
    bad = {"type": "image_url", "image_url": {"url": data_url(PNG[: len(PNG) // 2])}}
    check_error(server.post(ask(good, bad, bad)), 400, "messages.0.content.1", "invalid_image")


def test_url_input_is_refused_clearly(server: ScriptedServer) -> None:
    """An http(s) URL is a 400 that says that URL input is not enabled."""
    response = server.post(ask({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}))
    check_error(response, 400, "messages.0.content.0", "invalid_image")
    assert "not enabled" in response.json()["error"]["message"]


def test_model_without_vision_takes_no_pictures(server: ScriptedServer) -> None:
    """A model that is served without its vision tower refuses pictures and still answers text."""
    server.core.vision = False
    server.engine.stop()
    server.engine.start()
    part = {"type": "image_url", "image_url": {"url": data_url(PNG)}}
    try:
        from tests.fakes.processes import wait_until  # noqa: PLC0415 - used by this test only

        wait_until(server.process.is_ready, deadline_s=10, what="ready")
        check_error(server.post(ask(part)), 400, "messages", "images_not_supported")
        assert server.post(ask({"type": "text", "text": "Hi"})).status_code == 200
    finally:
        server.core.vision = True
        server.engine.stop()
        server.engine.start()
        wait_until(server.process.is_ready, deadline_s=10, what="ready")


def test_decoding_does_not_hold_up_other_requests(server: ScriptedServer) -> None:
    """While large pictures are decoded the server answers others."""
    import time  # noqa: PLC0415 - measured only here

    import requests  # noqa: PLC0415

    photo = encode(PIL.Image.effect_noise((2400, 1800), 40).convert("RGB"), "JPEG", quality=5)
    part = {"type": "image_url", "image_url": {"url": data_url(photo)}}
    worker = threading.Thread(target=server.post, args=(ask(*[part] * 3),))
    worker.start()
    latencies = []
    while worker.is_alive():
        start = time.perf_counter()
        requests.get(f"{server.base_url}/v1/health/live", timeout=10)
        latencies.append(time.perf_counter() - start)
    worker.join()
    assert len(server.core.requests[-1].images) == 3
    # One answer in ten may be late on a busy machine; decoding in the event loop would delay nearly all of the time.
    assert sorted(latencies)[len(latencies) * 9 // 10] < 0.5
