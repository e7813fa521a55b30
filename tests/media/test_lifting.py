"""Large pictures are lifted out of a body before it is parsed; nobody can tell, except by the time that it takes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from api.http.body import _parse
from api.media.decode import decode_image
from api.media.large_body import LargeBody
from api.media.lifting import LEAST_BYTES, MAX_MARKS, find, lift
from api.media.size import Budget
from tests.api.conftest import ScriptedServer
from tests.fakes.corpus import photo
from tests.fakes.pictures import data_url, encode

PHOTO = encode(photo((400, 300)))
URL = data_url(PHOTO)
FORMS = [
    {"type": "image_url", "image_url": {"url": URL}},
    {"type": "image_url", "image_url": URL},
    {"type": "input_image", "image_url": URL},
    {"type": "image", "image": URL},
    {"type": "image", "url": URL},
]


def body_of(*parts: Any) -> bytes:
    """Return a request body with these content parts."""
    return json.dumps({"messages": [{"role": "user", "content": list(parts)}], "n": 1}).encode()


@pytest.mark.parametrize("part", FORMS, ids=["object", "string", "input", "image", "url"])
def test_large_pictures_are_lifted_and_seen(api: ScriptedServer, part: dict[str, Any]) -> None:
    """In every form the parser gets a short body, and the engine the whole picture."""
    body = body_of({"type": "text", "text": "A"}, part, {"type": "text", "text": "B"}, part)
    lifted = lift(body)

    answer = api.post(data=body, headers={"content-type": "application/json"})

    assert len(URL) > LEAST_BYTES
    assert len(lifted.found) == 2
    assert len(lifted.rest) < 1000
    assert answer.status_code == 200, answer.text
    wanted = decode_image(PHOTO, Budget(280))
    assert all(image == wanted for image in api.core.requests[-1].images)
    assert len(api.core.requests[-1].images) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "user", "content": URL}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": URL}]}]},
        {"messages": [{"role": "user", "content": [FORMS[0], {"type": "text", "text": URL}]}]},
        {"note": URL, "messages": []},
        {URL: 1},
        [URL],
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": URL + "\n"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": ";base64,é" + "x" * 99_999}]}]},
    ],
)
def test_other_texts_are_what_they_were(value: Any) -> None:
    """Where the same text is no picture, or has escapes, the body is parsed as it is."""
    assert _parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize("cut", [10, 50, 100_000, -1, -2, -5])
def test_broken_bodies_are_refused_at_their_place(cut: int) -> None:
    """What is no JSON stays none, and the fault is told at the same place."""
    body = body_of(FORMS[0])[:cut]

    with pytest.raises(orjson.JSONDecodeError) as whole:
        orjson.loads(body)
    with pytest.raises(orjson.JSONDecodeError) as lifted:
        _parse(body)

    assert (lifted.value.lineno, lifted.value.colno) == (whole.value.lineno, whole.value.colno)


def test_small_pictures_are_left_alone() -> None:
    """A short payload is parsed with everything else."""
    body = body_of({"type": "image_url", "image_url": "data:;base64,aGVsbG8="})

    assert lift(body).rest is body


def test_tokens_lead_nowhere_in_other_requests() -> None:
    """A token means nothing outside of the request that it was made for."""
    token = next(iter(lift(body_of(FORMS[0])).found))

    assert find(f"data:;base64,{token}", 13) is None


def large(data: bytes, chunk: int) -> LargeBody:
    """Return a body as it arrives, so many bytes at a time."""
    body = LargeBody(len(data))
    for place in range(0, len(data), chunk):
        body.append(data[place : place + chunk])
    return body


@pytest.mark.parametrize("chunk", [1000, 65_536, 10_000_000])
@pytest.mark.parametrize(
    "parts",
    [FORMS, [{"type": "text", "text": 'a"\\b;base64,'}, FORMS[0], {"type": "text", "text": URL[:3000]}], [URL + "\\"]],
    ids=["pictures", "text", "escaped"],
)
def test_large_bodies_are_lifted_as_small_ones(parts: list[Any], chunk: int) -> None:
    """However a body arrives, the same pictures are found at the same places, and as much is left."""
    data = body_of(*parts)

    plain, lifted = lift(data), lift(large(data, chunk))

    places = [(picture.start, picture.stop) for picture in plain.found.values()]
    assert [(picture.start, picture.stop) for picture in lifted.found.values()] == places
    for picture in lifted.found.values():
        assert bytes(picture.part(0, picture.size)) == data[picture.start : picture.stop]
    assert len(lifted.rest) == len(plain.rest)
    assert _parse(large(data, chunk)).keys() == orjson.loads(data).keys()


@pytest.mark.parametrize("part", [b'"', b"\\", b"needle", b"absent"])
@pytest.mark.parametrize("chunk", [7, 4096, 300_000])
def test_search_of_a_large_body_is_that_of_bytes(part: bytes, chunk: int) -> None:
    """Whatever is looked for is found at the same place, also across the borders of chunks and of what is read."""
    data = (b"x" * 4093 + b"needle" + b'y"' * 2 + b"z" * 270_000 + b"\\needle" + b"x" * 9) * 2
    body = large(data, chunk)

    for start, end in ((0, None), (1, len(data)), (4093, 4098), (4094, None), (280_000, 290_000), (len(data), None)):
        assert body.find(part, start, end) == data.find(part, start, len(data) if end is None else end)


def test_body_longer_than_announced_is_cut() -> None:
    """What is more than was announced is dropped."""
    body = LargeBody(10)
    for _ in range(3):
        body.append(b"abcd")

    assert bytes(body.view) == b"abcdabcdab"
    assert len(body) == 10


def test_many_marks_cost_little() -> None:
    """A body full of what looks like the beginning of a picture is left to the parser."""
    mark, picture = b'";base64,",', b'"data:image/png;base64,' + b"A" * LEAST_BYTES + b'"]'

    assert lift(b"[" + mark * (MAX_MARKS - 1) + picture).found
    assert not lift(b"[" + mark * MAX_MARKS + picture).found
