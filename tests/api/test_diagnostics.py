"""The diagnostic routes with the real vocabulary, and without an engine: every vector gives what it must."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from api.gemma4.prompt import PromptState
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.api.conftest import MODEL, ScriptedServer
from tests.fakes.processes import ServerProcess, free_port
from tests.fakes.scripted_engine import ScriptedEngine
from tests.gemma4 import conftest as vocabulary
from tests.gemma4.conftest import vectors
from tests.gemma4.openai_form import chat_request

PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
# Requests that the chat route refuses, too: the template renders any order of roles, and audio, which is not served.
REFUSED = {
    "system_later+think": "messages.1.role",
    "final_assistant_reasoning": "messages.1.role",
    "final_assistant_reasoning-nogen": "messages.1.role",
    "consecutive_assistant+think": "messages.2.role",
    "consecutive_user": "messages.1.role",
    "consecutive_user+think": "messages.1.role",
    "assistant_first+think": "messages.0.role",
    "tool_call_pending": "messages.1.role",
    "tool_call_pending+think-nogen": "messages.1.role",
    "orphan_tool+think": "messages.1.role",
    "args_string": "messages.1.role",
    "args_none": "messages.1.role",
    "legacy_tool_responses": "messages.1.tool_responses",
    "legacy_tool_responses+think": "messages.1.tool_responses",
    "audio_video": "messages.0.content.0.type",
}
tokenizer_json = vocabulary.tokenizer_json
tokenizer = vocabulary.tokenizer


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory, tokenizer_json: str) -> Iterator[str]:
    """Start an API process with diagnostics, and take its engine away."""
    folder = tmp_path_factory.mktemp("diagnostics")
    (folder / "tokenizer.json").write_text(tokenizer_json)
    with ScriptedEngine(folder / "engine.sock") as engine:
        runtime = {
            "engine_endpoints": [engine.endpoint],
            "tokenizer_path": str(folder / "tokenizer.json"),
            "served_names": [MODEL],
            "created": 1_790_000_000,
        }
        (folder / "api.json").write_text(json.dumps(runtime))
        command = [sys.executable, "-m", "api", "--runtime", str(folder / "api.json")]
        variables = {"NIM_ENABLE_DIAGNOSTICS": "1"}
        with ServerProcess(command, free_port(), Path(folder / "api.log"), variables) as process:
            engine.stop()
            yield f"{process.base_url}/v1/chat/completions"


def post(url: str, body: object) -> requests.Response:
    """Post a JSON body."""
    return requests.post(url, json=body, timeout=60)


def request_body(vector: dict[str, Any]) -> dict[str, Any]:
    """Return a render vector's request as a client sends it, with a real picture in place of each image."""
    body = json.loads(json.dumps(vector["input"]))
    kwargs = {name: body.pop(name) for name in ("enable_thinking", "preserve_thinking") if name in body}
    for message in body["messages"]:
        if isinstance(message.get("content"), list):
            message["content"] = [
                {"type": "image_url", "image_url": {"url": PNG, "max_soft_tokens": 70}}
                if part["type"] in {"image", "image_url"}
                else part
                for part in message["content"]
            ]
    return {**body, "chat_template_kwargs": kwargs}


@pytest.mark.parametrize("vector", vectors("render"), ids=lambda v: v["id"])
def test_render_shows_the_prompt(base_url: str, tokenizer: Gemma4Tokenizer, vector: dict[str, Any]) -> None:
    """Every render vector that is a valid chat request comes back as the prompt that it has; others name the field."""
    response = post(f"{base_url}/render", request_body(vector))
    if vector["id"] in REFUSED:
        assert response.status_code == 400
        assert response.json()["error"]["param"] == REFUSED[vector["id"]]
        return
    assert response.status_code == 200, response.text
    shown = response.json()
    prompt = render(chat_request(vector["input"]), tokenizer)
    image = tokenizer.special.image
    framing = {tokenizer.special.image_open, tokenizer.special.image_close}
    ids = [token_id for token_id in shown["token_ids"] if token_id not in framing]
    # A picture takes as many places as its size asks for; without one, its place is a single id.
    joined = [key for key, run in itertools.groupby(ids) for _ in (run if key != image else (0,))]
    assert (shown["prompt"], joined, shown["state"]) == (prompt.text, list(prompt.ids), prompt.state)
    assert shown["count"] == len(shown["token_ids"])


@pytest.mark.parametrize("vector", vectors("parse"), ids=lambda v: v["id"])
def test_parse_shows_the_message(base_url: str, tokenizer: Gemma4Tokenizer, vector: dict[str, Any]) -> None:
    """Every parse vector becomes its message, from text and from ids; joined, the deltas are that message."""
    common = {"prompt_state": vector["prompt_state"], "tools": vector["tools"]}
    whole = post(f"{base_url}/parse", {"text": vector["text"], **common}).json()
    message = whole["message"]
    content, reasoning, calls = vector["want"]
    assert (message["role"], message["content"] or "", message.get("reasoning", "")) == (
        ("assistant", content, reasoning)
    )
    assert message.get("reasoning_content") == message.get("reasoning")
    found = [call["function"] for call in message.get("tool_calls", ())]
    if calls is not None:
        assert [[call["name"], json.loads(call["arguments"])] for call in found] == calls
    assert whole["finish_reason"] == ("tool_calls" if found else "stop")
    ids = tokenizer.encode_marked(vector["text"])
    streamed = post(f"{base_url}/parse", {"token_ids": ids, "stream": True, **common}).json()
    assert streamed["finish_reason"] == whole["finish_reason"]
    assert join(streamed["deltas"]) == (content, reasoning, [(call["name"], call["arguments"]) for call in found])


def join(deltas: list[dict[str, Any]]) -> tuple[str, str, list[tuple[str, str]]]:
    """Join deltas as a client does."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            name, arguments = calls.setdefault(call["index"], ["", ""])
            calls[call["index"]] = [
                name + call["function"].get("name", ""),
                arguments + call["function"]["arguments"],
            ]
    content, reasoning = ("".join(delta.get(kind, "") for delta in deltas) for kind in ("content", "reasoning"))
    return content, reasoning, [(name, arguments) for name, arguments in calls.values()]


def test_the_state_that_render_shows_is_the_one_to_parse_from(base_url: str) -> None:
    """A request with thinking off ends after the empty thought; from there, a label is ordinary text."""
    ask = [{"role": "user", "content": "x"}]
    off = post(f"{base_url}/render", {"messages": ask}).json()
    on = post(f"{base_url}/render", {"messages": ask, "reasoning_effort": "high"}).json()
    assert (off["state"], on["state"]) == (PromptState.CLOSED_THOUGHT, PromptState.NEW_TURN)
    message = post(f"{base_url}/parse", {"text": "thought\nx", "prompt_state": off["state"]}).json()["message"]
    assert (message["content"], message.get("reasoning")) == ("thought\nx", None)
    message = post(f"{base_url}/parse", {"text": "thought\nx", "prompt_state": on["state"]}).json()["message"]
    assert (message["content"], message["reasoning"]) == ("", "x")


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("parse", {}, "text"),
        ("parse", {"text": "a", "token_ids": [1]}, "token_ids"),
        ("parse", {"text": 1}, "text"),
        ("parse", {"token_ids": [1, -1]}, "token_ids.1"),
        ("parse", {"token_ids": [1, 10_000_000]}, "token_ids.1"),
        ("parse", {"text": "a", "prompt_state": "continued"}, "prompt_state"),
        ("parse", {"text": "a", "tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ("parse", {"text": "a", "streams": True}, "streams"),
        ("render", {}, "messages"),
        ("render", {"messages": [{"role": "user", "content": "x"}], "bad": 1}, "bad"),
    ],
)
def test_bad_input_names_the_field(base_url: str, route: str, body: dict[str, Any], param: str) -> None:
    """What cannot be shown is a 400 in OpenAI's form."""
    response = post(f"{base_url}/{route}", body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_render_knows_the_served_models_only(base_url: str) -> None:
    """An unknown model is a 404, as for a chat request."""
    body = {"model": "other", "messages": [{"role": "user", "content": "x"}]}
    assert post(f"{base_url}/render", body).json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("route", ["render", "parse"])
def test_diagnostics_are_off_by_default(server: ScriptedServer, route: str) -> None:
    """Without the setting the routes do not exist: 404 in OpenAI's form, and nothing about them in the documents."""
    response = post(f"{server.base_url}/v1/chat/completions/{route}", {"text": "a"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"
    documented = requests.get(f"{server.base_url}/openapi.json", timeout=60).json()["paths"]
    assert not any(path.endswith(route) for path in documented)
