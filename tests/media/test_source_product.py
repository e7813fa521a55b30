"""Picture conversations with the demo checkpoint, from the OpenAI SDK to the model: by URL, by base64, from a tool."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ROOT, Product
from tests.fakes.picture_server import PictureServer, serving
from tests.fakes.pictures import by_url, data_url, encode
from tests.fakes.shapes import shape

MODEL = "demo-moe"
QUESTION = {"type": "text", "text": "What colour is the shape?"}
LOOK = {
    "type": "function",
    "function": {
        "name": "take_photo",
        "description": "Take a photo with the camera.",
        "parameters": {"type": "object", "properties": {}},
    },
}


ROUNDING = 0.2
"""Computing the same beside other requests, or with more of it in the cache, moves log probabilities by a hundredth."""


@pytest.fixture(scope="module")
def photos(product: Product) -> Iterator[PictureServer]:
    """Serve pictures of one big shape, by colour, where the product may fetch them."""
    files = {f"/{colour}.png": encode(shape(colour)) for colour in ("red", "blue", "green")}
    assert product.picture_port is not None
    with PictureServer(serving(files), port=product.picture_port) as server:
        yield server


@pytest.fixture
def seeing(product: Product, photos: PictureServer) -> Product:  # noqa: ARG001 - it has to be there
    """Return the product beside the server from which it may fetch."""
    return product


def answer(product: Product, messages: list[Any], **extra: Any) -> tuple[str, int]:
    """Return what the model says, in lower case, and how many image tokens were counted."""
    given = product.client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=60, **extra
    )
    details = given.usage.prompt_tokens_details.model_dump()
    return (given.choices[0].message.content or "").lower(), details["image_tokens"]


def outlook(product: Product, messages: list[Any], **extra: Any) -> dict[str, float]:
    """Return the likeliest tokens after "The shape is" with their log probabilities: what the model sees moves them."""
    given = product.client.chat.completions.create(
        model=MODEL,
        messages=[*messages, {"role": "assistant", "content": "The shape is"}],
        temperature=0,
        max_tokens=1,
        logprobs=True,
        top_logprobs=5,
        extra_body={"min_tokens": 1, "add_generation_prompt": False, "continue_final_message": True},
        **extra,
    )
    return {entry.token: entry.logprob for entry in given.choices[0].logprobs.content[0].top_logprobs}


def distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Return the largest difference of two log probabilities. What else runs moves them, too, but by rounding only.

    A token that is not listed is at most as likely as the last one that is.
    """
    both = ((one, other), (other, one))
    return max(value - there.get(token, min(there.values())) for here, there in both for token, value in here.items())


@pytest.mark.parametrize("colour", ["red", "blue"])
def test_picture_by_url_and_by_base64_is_seen_alike(seeing: Product, photos: PictureServer, colour: str) -> None:
    """The model names the colour, the same whether the picture was fetched or sent."""
    file = encode(shape(colour))
    sources = (f"{photos.url}/{colour}.png", data_url(file), base64.b64encode(file).decode())
    said = [answer(seeing, [{"role": "user", "content": [by_url(url), QUESTION]}]) for url in sources]
    assert colour in said[0][0]
    assert said[0][1] == 256
    assert said[1:] == said[:1] * 2
    assert photos.exchanges[-1].path == f"/{colour}.png"


def test_conversation_about_two_pictures(seeing: Product, photos: PictureServer) -> None:
    """A second picture, in a later turn, is seen beside the first one."""
    first = {"role": "user", "content": [by_url(f"{photos.url}/red.png"), QUESTION]}
    said, _ = answer(seeing, [first])
    assert "red" in said
    turns = [first, {"role": "assistant", "content": said}]
    second = {"role": "user", "content": [by_url(data_url(encode(shape("blue")))), QUESTION]}
    _, tokens = answer(seeing, [*turns, second])
    assert tokens == 512
    other = {"role": "user", "content": [by_url(data_url(encode(shape("green")))), QUESTION]}
    seen, again, otherwise = (outlook(seeing, [*turns, last]) for last in (second, second, other))
    assert distance(seen, again) < ROUNDING < distance(seen, otherwise)


def test_picture_in_a_tool_message_works(seeing: Product, photos: PictureServer) -> None:
    """A tool's result that holds a picture is answered, streamed and whole, and the picture is counted."""
    call = {"id": "call_1", "type": "function", "function": {"name": "take_photo", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Take a photo. What colour is the shape?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {
            "role": "tool",
            "tool_call_id": "call_1",
            "content": [{"type": "text", "text": "done"}, by_url(f"{photos.url}/green.png", detail="low")],
        },
    ]
    said, tokens = answer(seeing, messages, tools=[LOOK])
    assert tokens == 64
    other = {**messages[2], "content": [messages[2]["content"][0], by_url(f"{photos.url}/red.png", detail="low")]}
    seen, otherwise = (outlook(seeing, [*messages[:2], last], tools=[LOOK]) for last in (messages[2], other))
    assert distance(seen, otherwise) > ROUNDING
    stream = seeing.client.chat.completions.create(
        model=MODEL, messages=messages, tools=[LOOK], temperature=0, max_tokens=60, stream=True
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert streamed.lower() == said


def test_example_of_the_page_runs(
    seeing: Product, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program in docs/images.md prints what the page promises."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "images.md").read_text(), re.DOTALL)
    assert "http://127.0.0.1:8000" in program
    monkeypatch.chdir(ROOT)
    exec(program.replace("http://127.0.0.1:8000", seeing.base_url), {})  # noqa: S102 - the page's own program
    printed = capsys.readouterr().out
    assert "red" in printed.lower()
    assert "image_tokens=64" in printed
