"""Large pictures are lifted out of a body before it is parsed; nobody can tell, except by the time that it takes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from api.http.body import _parse
from api.media.decode import decode_image
from api.media.lifting import LEAST_BYTES, find, lift
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
