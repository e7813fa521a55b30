"""How many tokens a picture takes, how many pictures a request may hold, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import requests

from api.media.size import BUDGETS, UnsizableError, fit, smallest_lossless_budget
from engine.core import Image
from tests.api.conftest import ScriptedServer
from tests.fakes.picture_server import PictureServer, serving
from tests.fakes.pictures import by_url, data_url, encode, plain
from tests.media.conftest import StartApi

ROWS = json.loads((Path(__file__).parent.parent / "data" / "image_tokens.json").read_text())["rows"]
PNG = plain()


def ask(*parts: Any) -> dict[str, Any]:
    """Return a request with these content parts."""
    return {"messages": [{"role": "user", "content": list(parts)}]}


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


@pytest.mark.parametrize(
    ("size", "budget"),
    [
        ((1, 1), 70),
        ((384, 384), 70),
        ((385, 384), 140),
        ((400, 400), 140),
        ((768, 768), 280),
        ((769, 768), 560),
        ((1584, 1584), 1120),
        ((1585, 1585), 1120),
        ((4000, 3000), 1120),
        ((3360, 48), 70),
    ],
)
def test_original_is_the_smallest_budget_that_shrinks_nothing(size: tuple[int, int], budget: int) -> None:
    """``original`` takes the first budget at which neither side shrinks, the largest one for pictures beyond it."""
    assert smallest_lossless_budget(*size) == budget
    for smaller in BUDGETS[: BUDGETS.index(budget)]:
        assert any(new < old for new, old in zip(fit(*size, smaller), size, strict=True))


@pytest.mark.parametrize(
    ("fields", "extra", "budget"),
    [
        ({}, {}, 280),
        ({"detail": None}, {}, 280),
        ({"detail": "auto"}, {}, 280),
        ({"detail": "low"}, {}, 70),
        ({"detail": "high"}, {}, 1120),
        ({"detail": "original"}, {}, 70),
        *(({"max_soft_tokens": tokens}, {}, tokens) for tokens in BUDGETS),
        *(({}, {"mm_processor_kwargs": {"max_soft_tokens": tokens}}, tokens) for tokens in BUDGETS),
        ({}, {"mm_processor_kwargs": {"images_kwargs": {"max_soft_tokens": 560}}}, 560),
        ({"detail": "auto", "max_soft_tokens": 560}, {}, 560),
        ({"detail": "auto"}, {"mm_processor_kwargs": {"max_soft_tokens": 140}}, 140),
        ({"detail": "low"}, {"mm_processor_kwargs": {"max_soft_tokens": 140}}, 70),
        ({"detail": "original"}, {"mm_processor_kwargs": {"max_soft_tokens": 1120}}, 70),
        ({"max_soft_tokens": 70}, {"mm_processor_kwargs": {"max_soft_tokens": 140}}, 70),
        ({}, {"mm_processor_kwargs": {}}, 280),
        ({}, {"mm_processor_kwargs": {"max_soft_tokens": None}}, 280),
    ],
)
def test_every_way_to_choose_a_budget(
    api: ScriptedServer, fields: dict[str, Any], extra: dict[str, Any], budget: int
) -> None:
    """The picture's own wish wins over the request's, and that over the server's; the usage counts what it takes."""
    body = api.post({**ask(by_url(data_url(PNG), **fields)), **extra})
    assert body.status_code == 200, body.text
    image = api.core.requests[-1].images[0]
    assert (image.width, image.height) == fit(64, 48, budget)
    assert body.json()["usage"]["prompt_tokens_details"]["image_tokens"] == image.soft_tokens


def test_budget_beside_the_url_counts_too(api: ScriptedServer) -> None:
    """``detail`` and ``max_soft_tokens`` work in the object of the URL and beside it, for every kind of part."""
    for part in (
        {"type": "image_url", "image_url": data_url(PNG), "detail": "low"},
        {"type": "input_image", "image_url": data_url(PNG), "detail": "low"},
        {"type": "image", "image": data_url(PNG), "max_soft_tokens": 70},
    ):
        assert api.post(ask(part)).status_code == 200
        assert api.core.requests[-1].images[0].soft_tokens == 63


def test_pictures_of_one_request_have_budgets_of_their_own(api: ScriptedServer) -> None:
    """Each picture is sized by itself; the usage has the sum, and the prompt as many places."""
    square = encode(PIL.Image.new("RGB", (500, 500)))
    parts = [by_url(data_url(square), detail=detail) for detail in ("low", "auto", "high", "original")]
    body = api.post({**ask(*parts)})
    assert body.status_code == 200, body.text
    request = api.core.requests[-1]
    assert [image.soft_tokens for image in request.images] == [64, 256, 1089, 121]
    assert body.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 64 + 256 + 1089 + 121
    assert request.prompt_ids.count(api.tokenizer.special.image) == 64 + 256 + 1089 + 121


@pytest.mark.parametrize(
    ("fields", "extra", "param"),
    [
        ({"detail": "medium"}, {}, "messages.0.content.0.image_url.detail"),
        ({"detail": 5}, {}, "messages.0.content.0.image_url.detail"),
        *(
            ({"max_soft_tokens": value}, {}, "messages.0.content.0.image_url.max_soft_tokens")
            for value in (0, 1, 69, 71, 279, 281, 1121, 2240, -70, 280.5, "280", True, 10**30)
        ),
        ({"detail": "low", "max_soft_tokens": 70}, {}, "messages.0.content.0.max_soft_tokens"),
        ({}, {"mm_processor_kwargs": {"max_soft_tokens": 300}}, "mm_processor_kwargs.max_soft_tokens"),
        ({}, {"mm_processor_kwargs": {"do_resize": False}}, "mm_processor_kwargs.do_resize"),
        (
            {},
            {"mm_processor_kwargs": {"max_soft_tokens": 70, "images_kwargs": {"max_soft_tokens": 140}}},
            "mm_processor_kwargs.images_kwargs.max_soft_tokens",
        ),
    ],
)
def test_other_budgets_are_a_400(
    api: ScriptedServer, fields: dict[str, Any], extra: dict[str, Any], param: str
) -> None:
    """Only the budgets that the model was trained with are taken; the field at fault is named."""
    response = api.post({**ask(by_url(data_url(PNG), **fields)), **extra})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert api.core.requests == []


def test_default_budget_and_limit_are_settings(start_api: StartApi) -> None:
    """``NIM_IMAGE_TOKENS`` is the budget of pictures that ask for none; ``detail`` still wins."""
    with start_api(NIM_IMAGE_TOKENS="560") as server:
        for fields, budget in (({}, 560), ({"detail": "auto"}, 560), ({"detail": "low"}, 70)):
            assert server.post(ask(by_url(data_url(PNG), **fields))).status_code == 200
            image = server.core.requests[-1].images[0]
            assert (image.width, image.height) == fit(64, 48, budget)
        images = requests.get(f"{server.base_url}/v1/capabilities", timeout=60).json()["images"]
        assert images["default_tokens"] == images["details"]["auto"] == 560


def test_one_picture_too_many_is_refused_before_anything_is_fetched(start_api: StartApi) -> None:
    """The message has both numbers; pictures of all messages count; no connection is made, nothing is decoded."""
    with (
        PictureServer(serving({"/a.png": PNG})) as pictures,
        start_api(NIM_MAX_IMAGES_PER_PROMPT="2", NIM_ALLOWED_MEDIA_DOMAINS=f"127.0.0.1:{pictures.port}") as server,
    ):
        part = by_url(f"{pictures.url}/a.png")
        messages = [
            {"role": "system", "content": [part]},
            {"role": "user", "content": [by_url("data:,broken")], "images": ["broken"]},
        ]
        response = server.post({"messages": messages})
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("too_many_images", "messages")
        assert "At most 2 image(s)" in error["message"]
        assert "3 were sent" in error["message"]
        assert pictures.connections == 0
        assert server.post(ask(part, part)).status_code == 200
        assert len(pictures.exchanges) == 2


def test_default_limit_is_five(api: ScriptedServer) -> None:
    """Five pictures are taken, six are not."""
    part = by_url(data_url(PNG), detail="low")
    assert api.post(ask(*[part] * 5)).status_code == 200
    response = api.post(ask(*[part] * 6))
    assert response.status_code == 400
    assert "5" in response.json()["error"]["message"]
    assert "6" in response.json()["error"]["message"]


def test_zero_pictures_means_text_only(start_api: StartApi) -> None:
    """With a limit of 0 every picture is refused and text still works."""
    with start_api(NIM_MAX_IMAGES_PER_PROMPT="0") as server:
        response = server.post(ask(by_url(data_url(PNG))))
        assert response.status_code == 400
        message = response.json()["error"]["message"]
        assert "At most 0" in message
        assert "1 were sent" in message
        assert "text only" in message
        assert server.post(ask({"type": "text", "text": "Hi"})).status_code == 200
        assert requests.get(f"{server.base_url}/v1/capabilities", timeout=60).json()["images"]["max_per_prompt"] == 0
