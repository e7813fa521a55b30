"""Pictures in requests: every form, in every role, from every source, through the HTTP route to the engine."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from api.media.size import fit
from tests.api.conftest import MODEL, ScriptedServer
from tests.fakes.picture_server import Exchange, PictureServer, serving
from tests.fakes.pictures import BLUE, RED, WHITE, by_url, data_url, is_close, plain
from tests.fakes.processes import wait_until
from tests.media.conftest import StartApi

PNG = plain(BLUE)
TEXT = {"type": "text", "text": "What is this?"}
BARE = base64.b64encode(PNG).decode()
BARE_JPEG = base64.b64encode(plain(BLUE, kind="JPEG")).decode()
FETCH_TIMEOUT_S = 8
"""Enough on a busy machine; one test waits as long."""
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def ask(*parts: Any) -> dict[str, Any]:
    """Return a request with these content parts."""
    return {"messages": [{"role": "user", "content": list(parts)}]}


def error_of(response: requests.Response) -> dict[str, Any]:
    """Return the error of a 400 for an image that cannot be used."""
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


def colours(server: ScriptedServer) -> list[tuple[int, ...]]:
    """Return the first pixel of every picture that the engine was last given, as the nearest of the test's colours."""
    seen = [tuple(image.rgb[:3]) for image in server.core.requests[-1].images]
    return [next(colour for colour in (RED, BLUE, WHITE) if is_close(pixel, colour)) for pixel in seen]


@pytest.mark.parametrize(
    "part",
    [
        by_url(data_url(PNG)),
        by_url(data_url(PNG).upper().replace(BARE.upper(), BARE)),
        by_url(BARE),
        {"type": "image_url", "image_url": data_url(PNG)},
        {"type": "image_url", "image_url": BARE},
        {"type": "input_image", "image_url": data_url(PNG)},
        {"type": "input_image", "image_url": {"url": data_url(PNG)}},
        {"type": "image", "image": data_url(PNG)},
        {"type": "image", "url": data_url(PNG)},
        {"type": "image", "base64": data_url(PNG)},
        {"type": "image", "image": BARE},
        {"type": "image", "base64": BARE},
        {"type": "image", "base64": BARE_JPEG},
        {"type": "image", "base64": base64.encodebytes(PNG).decode().rstrip("=\n")},
    ],
)
def test_every_form_of_a_picture_reaches_the_engine(api: ScriptedServer, part: dict[str, Any]) -> None:
    """All forms give the same pixels, at their place among the texts, and are counted in the usage."""
    body = api.post(ask({"type": "text", "text": "A"}, part, {"type": "text", "text": "B"}))
    assert body.status_code == 200, body.text
    request = api.core.requests[-1]
    (image,) = request.images
    assert (image.width, image.height) == fit(64, 48, 280)
    assert colours(api) == [BLUE]
    special = api.tokenizer.special
    assert request.prompt_ids.count(special.image) == image.soft_tokens
    assert request.prompt_ids.count(special.image_open) == request.prompt_ids.count(special.image_close) == 1
    usage = body.json()["usage"]
    assert usage["prompt_tokens"] == len(request.prompt_ids)
    assert usage["prompt_tokens_details"]["image_tokens"] == image.soft_tokens
    shown = api.prompt().replace("<|image|>" * image.soft_tokens, "*")
    assert "user\nA<|image>*<image|>B<turn|>" in shown


def part_of(colour: tuple[int, int, int]) -> dict[str, Any]:
    """Return a small picture of one colour."""
    return by_url(data_url(plain(colour)), detail="low")


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ([{"role": "user", "content": [part_of(RED), TEXT, part_of(BLUE)]}], [RED, BLUE]),
        (
            [{"role": "system", "content": [TEXT, part_of(RED), TEXT]}, {"role": "user", "content": [part_of(BLUE)]}],
            [RED, BLUE],
        ),
        ([{"role": "developer", "content": [part_of(RED)]}, {"role": "user", "content": "Hi"}], [RED]),
        (
            [
                {"role": "user", "content": [part_of(RED)]},
                {"role": "assistant", "content": [TEXT, part_of(BLUE), TEXT]},
                {"role": "user", "content": [TEXT, part_of(WHITE)]},
            ],
            [RED, BLUE, WHITE],
        ),
        (
            [
                {"role": "user", "content": [part_of(RED), TEXT]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": [part_of(BLUE), TEXT, part_of(WHITE)]},
            ],
            [RED, BLUE, WHITE],
        ),
        (
            [
                {"role": "user", "content": "Hi", "images": [base64.b64encode(plain(RED)).decode()]},
                {"role": "assistant", "content": "I see.", "images": [data_url(plain(BLUE))]},
                {"role": "user", "content": [TEXT, part_of(WHITE)], "images": [data_url(plain(RED))]},
            ],
            [RED, BLUE, RED, WHITE],
        ),
        (
            [
                {"role": "system", "content": "Look.", "images": [BARE]},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "see", "images": [data_url(plain(RED))]},
            ],
            [BLUE, RED],
        ),
    ],
    ids=["user", "system", "developer", "assistant", "tool", "ollama", "ollama-system-and-tool"],
)
def test_pictures_of_every_role_arrive_in_order(
    api: ScriptedServer, messages: list[dict[str, Any]], wanted: list[tuple[int, int, int]]
) -> None:
    """System, user, assistant and tool messages may hold pictures anywhere among their texts."""
    body = api.post({"messages": messages})
    assert body.status_code == 200, body.text
    assert colours(api) == wanted
    request = api.core.requests[-1]
    tokens = sum(image.soft_tokens for image in request.images)
    assert request.prompt_ids.count(api.tokenizer.special.image) == tokens
    assert body.json()["usage"]["prompt_tokens_details"]["image_tokens"] == tokens


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ([part_of(RED), {"type": "text", "text": "This is"}], "<|image>*<image|>This is"),
        ([{"type": "text", "text": "This"}, part_of(RED)], "This<|image>*<image|>"),
        ([part_of(RED)], "<|image>*<image|>"),
    ],
)
def test_continued_answer_keeps_its_pictures(api: ScriptedServer, content: list[Any], end: str) -> None:
    """A final assistant message with pictures is gone on with right after what it shows."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]
    body = api.post({"messages": messages, "add_generation_prompt": False, "continue_final_message": True})
    assert body.status_code == 200, body.text
    tokens = api.core.requests[-1].images[0].soft_tokens
    assert api.prompt().replace("<|image|>" * tokens, "*").endswith(end)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (by_url("data:image/png;base64,!!!!"), "not valid base64"),
        (by_url("data:image/png;base64,"), "no data"),
        (by_url("data:text/plain,hello"), "must hold base64"),
        (by_url("no picture"), "base64"),
        (by_url("ftp://example.com/a.png"), "scheme"),
        (by_url("file:///etc/passwd"), "by path"),
        (by_url("/etc/passwd"), "by path"),
        ({"type": "image", "image": "../secret.png"}, "by path"),
        (by_url(data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>")), "not a JPEG"),
        (by_url(data_url(PNG[: len(PNG) // 2])), "PNG"),
    ],
)
def test_part_that_cannot_be_used_is_named(api: ScriptedServer, part: dict[str, Any], reason: str) -> None:
    """A bad picture is a 400 that names message and part, first in order, and the engine is not asked."""
    good = by_url(data_url(PNG))
    messages = [
        {"role": "user", "content": [good]},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": [TEXT, good, part, part]},
    ]
    error = error_of(api.post({"messages": messages}))
    assert (error["code"], error["param"]) == ("invalid_image", "messages.2.content.2")
    assert error["message"].startswith("Invalid image in messages.2.content.2: ")
    assert reason in error["message"]
    assert api.core.requests == []


def test_bad_picture_of_ollama_s_list_is_named(api: ScriptedServer) -> None:
    """Pictures beside the content have a path of their own."""
    messages = [{"role": "user", "content": "Hi", "images": [BARE, "aGVsbG8="]}]
    assert error_of(api.post({"messages": messages}))["param"] == "messages.0.images.1"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image"}]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "image", "url": BARE, "base64": BARE}]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages.0.content.0.image_url"),
        ({"role": "user", "content": [by_url("")]}, "messages.0.content.0.image_url.url"),
        ({"role": "user", "content": "Hi", "images": [5]}, "messages.0.images.0"),
        ({"role": "user", "content": "Hi", "images": BARE}, "messages.0.images"),
    ],
)
def test_part_without_one_source_is_named(api: ScriptedServer, message: dict[str, Any], param: str) -> None:
    """A part that is not of any accepted form is a 400 that names it."""
    assert error_of(api.post({"messages": [message]}))["param"] == param


def test_object_result_takes_no_pictures_beside_it(api: ScriptedServer) -> None:
    """A tool's result that is an object has no place for pictures, and none is dropped in silence."""
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": {"a": 1}, "images": [BARE]},
    ]
    assert error_of(api.post({"messages": messages}))["param"] == "messages.2.images"


def test_client_errors_of_the_sdk(api: ScriptedServer) -> None:
    """The OpenAI SDK sees a bad request with its param and code."""
    with pytest.raises(openai.BadRequestError) as refused:
        api.client.chat.completions.create(model=MODEL, messages=ask(TEXT, by_url("http://127.0.0.1/"))["messages"])
    assert refused.value.param == "messages.0.content.1"
    assert refused.value.code == "invalid_image"


def test_model_without_vision_takes_no_pictures(api: ScriptedServer) -> None:
    """A model that is served without its vision tower refuses pictures and still answers text."""

    def restart(*, vision: bool) -> None:
        api.core.vision = vision
        api.engine.stop()
        api.engine.start()
        wait_until(api.process.is_ready, what="ready")

    restart(vision=False)
    try:
        error = error_of(api.post(ask(by_url(data_url(PNG)))))
        assert (error["code"], error["param"]) == ("images_not_supported", "messages")
        assert api.post(ask(TEXT)).status_code == 200
    finally:
        restart(vision=True)


@pytest.fixture(scope="module")
def pictures() -> Iterator[PictureServer]:
    """Serve one picture, one redirect to it, a file that is none, and one that never comes."""
    files = serving({"/blue.png": PNG, "/red.jpg": plain(RED, kind="JPEG"), "/page.html": b"<html></html>"})

    async def handle(exchange: Exchange) -> None:
        if exchange.path == "/moved":
            await exchange.answer(status="301 Moved", location="/blue.png")
        elif exchange.path == "/never":
            await exchange.closed()
        else:
            await files(exchange)

    with PictureServer(handle) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures."""
    made = tmp_path_factory.mktemp("pictures")
    (made / "blue cat.png").write_bytes(PNG)
    return made


@pytest.fixture(scope="module")
def open_api(start_api: StartApi, pictures: PictureServer, folder: Path) -> Iterator[ScriptedServer]:
    """Start an API process that may fetch from the test's server and read the test's folder."""
    with start_api(
        NIM_ALLOWED_MEDIA_DOMAINS=f"127.0.0.1:{pictures.port}, localhost:{pictures.port}",
        NIM_ALLOWED_LOCAL_MEDIA_PATH=str(folder),
        NIM_MEDIA_FETCH_TIMEOUT_SECONDS=str(FETCH_TIMEOUT_S),
        NIM_MEDIA_CONNECT_TIMEOUT_SECONDS=str(FETCH_TIMEOUT_S),
        NIM_MAX_IMAGE_BYTES="20000",
        NIM_MAX_IMAGES_PER_PROMPT="8",
    ) as server:
        yield server


@pytest.mark.parametrize("path", ["/blue.png", "/moved", "/blue.png#top"])
def test_pictures_by_url(open_api: ScriptedServer, pictures: PictureServer, path: str) -> None:
    """A listed host is fetched from, redirects included."""
    body = open_api.post(ask(TEXT, by_url(pictures.url + path), TEXT))
    assert body.status_code == 200, body.text
    assert colours(open_api) == [BLUE]
    assert pictures.exchanges[-1].path == "/blue.png"


def test_pictures_by_url_and_inline_keep_their_order(open_api: ScriptedServer, pictures: PictureServer) -> None:
    """Fetched ones and others come in the order of the request, however long each takes."""
    parts = [
        by_url(f"http://localhost:{pictures.port}/red.jpg"),
        by_url(data_url(PNG)),
        by_url(f"{pictures.url}/moved"),
        {"type": "image", "url": f"{pictures.url}/red.jpg"},
        {"type": "input_image", "image_url": f"{pictures.url}/blue.png"},
    ]
    body = open_api.post(ask(*parts))
    assert body.status_code == 200, body.text
    assert colours(open_api) == [RED, BLUE, BLUE, RED, BLUE]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing.png", "status 404"),
        ("/page.html", "not a JPEG"),
    ],
)
def test_url_without_a_picture_is_a_400(
    open_api: ScriptedServer, pictures: PictureServer, path: str, reason: str
) -> None:
    """What the other server does wrong is told to the caller with message and part."""
    error = error_of(open_api.post(ask(TEXT, by_url(pictures.url + path))))
    assert (error["code"], error["param"]) == ("invalid_image", "messages.0.content.1")
    assert reason in error["message"]


def test_host_that_is_not_listed_is_refused(open_api: ScriptedServer) -> None:
    """With a list of hosts nothing else is fetched, public or not."""
    for url in ("http://example.com/a.png", "http://127.0.0.2/a.png", "http://127.0.0.1/a.png"):
        assert error_of(open_api.post(ask(by_url(url))))["param"] == "messages.0.content.0"


@pytest.mark.parametrize("form", ["{folder}/blue cat.png", "blue cat.png", "file://{folder}/blue%20cat.png"])
def test_pictures_by_path(open_api: ScriptedServer, folder: Path, form: str) -> None:
    """Files of the opened folder are read by path or ``file:`` URL."""
    body = open_api.post(ask(by_url(form.format(folder=folder))))
    assert body.status_code == 200, body.text
    assert colours(open_api) == [BLUE]


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "file:///etc/hostname", "missing.png"])
def test_other_paths_are_a_400(open_api: ScriptedServer, path: str) -> None:
    """Nothing outside of the folder is read, and nothing is told about it."""
    error = error_of(open_api.post(ask(TEXT, by_url(path))))
    assert error["param"] == "messages.0.content.1"
    assert "no such image file" in error["message"]


def test_size_limit_holds_for_every_source(open_api: ScriptedServer, folder: Path) -> None:
    """A picture of more than ``NIM_MAX_IMAGE_BYTES`` is refused, inline and by path."""
    large = plain(BLUE, (800, 600), "BMP")
    (folder / "large.bmp").write_bytes(large)
    for url in (data_url(large), str(folder / "large.bmp")):
        error = error_of(open_api.post(ask(by_url(url))))
        assert "larger than 20000 bytes" in error["message"]


@pytest.mark.slow
def test_server_answers_others_while_a_picture_is_fetched(open_api: ScriptedServer, pictures: PictureServer) -> None:
    """A server that never answers keeps only the request that named it waiting."""
    seen = len(pictures.exchanges)
    with ThreadPoolExecutor(1) as executor:
        slow = executor.submit(open_api.post, ask(by_url(f"{pictures.url}/never")))
        wait_until(lambda: len(pictures.exchanges) > seen, what="the fetch")
        answer = requests.get(f"{open_api.base_url}/v1/health/live", timeout=60)
        is_waiting = not slow.done()
    assert answer.ok
    assert is_waiting
    error = error_of(slow.result())
    assert error["param"] == "messages.0.content.0"
    assert f"within {FETCH_TIMEOUT_S} seconds" in error["message"]


def test_capabilities_tell_sources(api: ScriptedServer, open_api: ScriptedServer) -> None:
    """A client can find out which sources this server takes."""
    closed = requests.get(f"{api.base_url}/v1/capabilities", timeout=60).json()["images"]
    opened = requests.get(f"{open_api.base_url}/v1/capabilities", timeout=60).json()["images"]
    assert closed["sources"] == ["data_url", "base64", "http_url", "https_url"]
    assert opened["sources"] == ["data_url", "base64", "http_url", "https_url", "file_path", "file_url"]
    assert opened["max_per_prompt"] == 8
    assert closed["details"]["low"] == 70
    assert closed["details"]["auto"] == 280


def test_urls_can_be_turned_off(start_api: StartApi, pictures: PictureServer) -> None:
    """With ``NIM_ALLOW_URL_INPUT=0`` no URL is fetched, not even from a listed host; inline pictures work."""
    seen = pictures.connections
    with start_api(NIM_ALLOW_URL_INPUT="0", NIM_ALLOWED_MEDIA_DOMAINS=f"127.0.0.1:{pictures.port}") as server:
        error = error_of(server.post(ask(TEXT, by_url(f"{pictures.url}/blue.png"))))
        assert error["param"] == "messages.0.content.1"
        assert "does not fetch images by URL" in error["message"]
        assert server.post(ask(by_url(data_url(PNG)))).status_code == 200
        images = requests.get(f"{server.base_url}/v1/capabilities", timeout=60).json()["images"]
        assert images["sources"] == ["data_url", "base64"]
    assert pictures.connections == seen
