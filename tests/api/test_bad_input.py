"""Every fault of a request is a 4xx in OpenAI's error shape that names the field, and the engine is not asked."""

from __future__ import annotations

import gzip
import json
from typing import Any

import openai
import pytest

from tests.api.conftest import MODEL, ScriptedServer

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
BROKEN_PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"


def image(url: Any) -> dict[str, Any]:
    """Return a user message with a text and a picture."""
    return {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": url}]}


WRONG: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({}, "messages", "missing_required_parameter"),
    ({"messages": []}, "messages", None),
    ({"messages": "Hi"}, "messages", None),
    ({"messages": [5]}, "messages.0", None),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", None),
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", None),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", None),
    ({"messages": [{"content": "x"}]}, "messages.0.role", None),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text", None),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages.0.content.0.text", None),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0.type", None),
    ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages.0.name", None),
    ({"messages": [{"role": "user", "content": "x", "nickname": "bob"}]}, "messages.0.nickname", "unknown_field"),
    ({"messages": [USER], "bad_words": [""]}, "bad_words.0", None),
    ({"messages": [USER], "bad_words": ["x"], "response_format": {"type": "json_object"}}, "bad_words", None),
    ({"messages": [USER], "allowed_token_ids": []}, "allowed_token_ids", None),
    ({"messages": [USER], "allowed_token_ids": [10**9]}, "allowed_token_ids", None),
    ({"messages": [image(5)]}, "messages.0.content.1.image_url", None),
    ({"messages": [image({"url": "data:,", "detail": "huge"})]}, "messages.0.content.1.image_url.detail", None),
    (
        {"messages": [image({"url": "data:,", "max_soft_tokens": 71})]},
        "messages.0.content.1.image_url.max_soft_tokens",
        None,
    ),
    ({"messages": [image(BROKEN_PNG)]}, "messages.0.content.1", "invalid_image"),
    ({"messages": [image("data:image/png;base64,@@@@")]}, "messages.0.content.1", "invalid_image"),
    ({"messages": [image("data:image/png;base64,aGVsbG8=")]}, "messages.0.content.1", "invalid_image"),
    ({"messages": [image("http://127.0.0.1:1/a.png")]}, "messages.0.content.1", "invalid_image"),
    ({"messages": [image("file:///etc/passwd")]}, "messages.0.content.1", "invalid_image"),
    ({"messages": [USER], "banana": 1}, "banana", "unknown_field"),
    ({"messages": [USER], "audio": {"voice": "x"}}, "audio", "unknown_field"),
    ({"messages": [USER], "stream_options": {"x": 1}}, "stream_options.x", "unknown_field"),
    ({"messages": [USER], "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x", "unknown_field"),
    ({"messages": [USER], "temperature": "hot"}, "temperature", None),
    ({"messages": [USER], "temperature": "0.5"}, "temperature", None),
    ({"messages": [USER], "temperature": -1}, "temperature", None),
    ({"messages": [USER], "temperature": 2.5}, "temperature", None),
    ({"messages": [USER], "top_p": 0}, "top_p", None),
    ({"messages": [USER], "top_k": -2}, "top_k", None),
    ({"messages": [USER], "repetition_penalty": 1e-40}, "repetition_penalty", None),
    ({"messages": [USER], "n": 0}, "n", None),
    ({"messages": [USER], "n": 1.5}, "n", None),
    ({"messages": [USER], "max_tokens": 0}, "max_tokens", None),
    ({"messages": [USER], "max_tokens": True}, "max_tokens", None),
    ({"messages": [USER], "max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", None),
    ({"messages": [USER], "max_tokens": 5, "min_tokens": 6}, "min_tokens", None),
    ({"messages": [USER], "stop": [""]}, "stop.0", None),
    ({"messages": [USER], "stop": 5}, "stop", None),
    ({"messages": [USER], "stop": ["x"] * 17}, "stop", None),
    ({"messages": [USER], "stop": ["x" * 1001]}, "stop.0", None),
    ({"messages": [USER], "stream": "yes"}, "stream", None),
    ({"messages": [USER], "seed": "x"}, "seed", None),
    ({"messages": [USER], "top_logprobs": 3}, "top_logprobs", None),
    ({"messages": [USER], "logprobs": True, "top_logprobs": 21}, "top_logprobs", None),
    ({"messages": [USER], "logit_bias": {"x": 1}}, "logit_bias", None),
    ({"messages": [USER], "logit_bias": {"5": 101}}, "logit_bias.5", None),
    ({"messages": [USER], "tools": [{"type": "custom"}]}, "tools.0.type", None),
    ({"messages": [USER], "tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", None),
    ({"messages": [USER], "tools": [TOOL, TOOL]}, "tools.1.function.name", None),
    ({"messages": [USER], "tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", None),
    ({"messages": [USER], "tool_choice": "required"}, "tool_choice", None),
    (
        {"messages": [USER], "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice.function.name",
        None,
    ),
    ({"messages": [USER], "response_format": {"type": "yaml"}}, "response_format.type", None),
    ({"messages": [USER], "response_format": {"type": "json_schema"}}, "response_format.json_schema", None),
    ({"messages": [USER], "guided_regex": "a", "guided_choice": ["a"]}, "response_format", None),
    ({"messages": [USER], "guided_json": '{"enum": ["\\ud800"]}'}, "guided_json", None),
    ({"messages": [USER], "guided_json": '{"enum": [NaN]}'}, "guided_json", None),
    ({"messages": [USER], "guided_json": {"properties": ["a"]}}, "guided_json", "invalid_schema"),
    ({"messages": [USER], "guided_choice": ["x" * 1_000_001]}, "guided_choice", "invalid_schema"),
    ({"messages": [{"role": "user", "content": "a" * 3_000_000}]}, "messages", "context_length_exceeded"),
    (
        {
            "messages": [USER],
            "tools": [{"type": "function", "function": {"name": "f", "description": "a" * 3_000_000}}],
        },
        "tools",
        "context_length_exceeded",
    ),
    ({"messages": [USER], "reasoning_effort": "none", "thinking": {"type": "enabled"}}, "thinking.type", None),
    ({"messages": [USER], "reasoning_effort": "much"}, "reasoning_effort", None),
    ({"messages": [USER], "store": True}, "store", None),
    (
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{no"}}],
                },
                {"role": "tool", "tool_call_id": "a", "content": "1"},
            ]
        },
        "messages.1.tool_calls.0.function.arguments",
        None,
    ),
]


def check_error(response: Any, status: int, param: str | None, code: str | None = None) -> None:
    """Check the shape of an error answer and what it names."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"]
    assert body["error"]["param"] == param
    if code is not None:
        assert body["error"]["code"] == code


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "param", "code"), WRONG, ids=[f"{i}-{item[1]}" for i, item in enumerate(WRONG)])
def test_wrong_field_is_named(
    server: ScriptedServer, body: dict[str, Any], param: str | None, code: str | None, *, stream: bool
) -> None:
    """A field that is wrong, missing or unknown is a 400 with its path, streamed or not."""
    if "stream" not in body and body:
        body = {**body, "stream": stream}
    check_error(server.post(body), 400, param, code)
    assert not server.core.requests


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages": [}', b'"text"', b"[" * 100, b'{"a": NaN}']
)
def test_body_that_is_no_json_object(server: ScriptedServer, data: bytes) -> None:
    """Anything but a JSON object is a 400 that says so."""
    check_error(server.post(data=data, headers={"content-type": "application/json"}), 400, None, "malformed_json")


@pytest.mark.parametrize(
    ("data", "named"),
    [(b"\xef\xbb\xbf{}", "byte order mark"), ("{}".encode("utf-16"), "UTF-8"), (b'{"a": "\xe9"}', "UTF-8")],
)
def test_wrong_encoding_is_named(server: ScriptedServer, data: bytes, named: str) -> None:
    """A body that an editor has saved in another encoding gets an answer that says so."""
    response = server.post(data=data, headers={"content-type": "application/json"})
    check_error(response, 400, None, "malformed_json")
    assert named in response.json()["error"]["message"]


def test_a_compressed_body_is_refused(server: ScriptedServer) -> None:
    """Some clients compress large bodies when told to: the answer says that this server takes none."""
    body = gzip.compress(json.dumps({"messages": [USER]}).encode())
    check_error(server.post(data=body, headers={"content-encoding": "gzip"}), 415, None, "unsupported_content_encoding")
    plain = server.post(data=json.dumps({"messages": [USER]}), headers={"content-encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model(server: ScriptedServer, *, stream: bool) -> None:
    """A model that is not served is a 404 that names it."""
    response = server.post({"model": "gpt-4", "messages": [USER], "stream": stream})
    check_error(response, 404, "model", "model_not_found")
    assert "gpt-4" in response.json()["error"]["message"]


def test_sdk_raises_its_own_errors(server: ScriptedServer) -> None:
    """The SDK understands the error answers."""
    with pytest.raises(openai.NotFoundError) as not_found:
        server.client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
    assert not_found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        server.client.chat.completions.create(model=MODEL, messages=[])
    assert bad.value.param == "messages"


def test_unknown_route_and_method(server: ScriptedServer) -> None:
    """Unknown paths are a 404, wrong methods a 405, in the same shape."""
    import requests  # noqa: PLC0415 - only here without the chat route

    check_error(requests.get(f"{server.base_url}/v2/nothing", timeout=60), 404, None, "unknown_url")
    for path in ("/chat/completions", "/v1/v1/chat/completions"):
        missed = requests.post(f"{server.base_url}{path}", json={}, timeout=60)
        check_error(missed, 404, None, "unknown_url")
        assert "Do you mean /v1/chat/completions?" in missed.json()["error"]["message"]
    response = requests.get(f"{server.base_url}/v1/chat/completions", timeout=60)
    check_error(response, 405, None, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    check_error(requests.get(f"{server.base_url}/v1/models/nothing", timeout=60), 404, None, "model_not_found")


def test_body_over_the_limit(server: ScriptedServer) -> None:
    """A body over ``NIM_MAX_REQUEST_BYTES`` is a 413, whether or not its length is declared."""
    large = b'{"messages": "' + b"x" * (5 * 1024 * 1024) + b'"}'
    check_error(server.post(data=large), 413, None, "request_too_large")
    check_error(server.post(data=iter([large])), 413, None, "request_too_large")


def test_request_id_is_kept_or_made(server: ScriptedServer) -> None:
    """A harmless ``x-request-id`` is echoed, also on errors; any other is replaced."""
    assert server.post({}, headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = server.post({"messages": [USER]}, headers={"x-request-id": "a b\u00e9".encode("latin-1")}).headers[
        "x-request-id"
    ]
    assert len(made) == 32


@pytest.mark.parametrize("top_k", [2**31, 2**63, 10**18])
def test_a_top_k_beyond_the_vocabulary_is_all_of_it(server: ScriptedServer, top_k: int) -> None:
    """It says the same as the vocabulary's size, which engines can be told."""
    assert server.post({"messages": [USER], "top_k": top_k}).status_code == 200
    assert server.core.requests[-1].sampling.top_k == server.tokenizer.size


def test_null_means_not_given(server: ScriptedServer) -> None:
    """Clients that send null for what they leave out are served."""
    fields = (
        "temperature",
        "top_p",
        "n",
        "stop",
        "tools",
        "tool_choice",
        "seed",
        "max_tokens",
        "logprobs",
        "user",
        "response_format",
        "stream",
        "stream_options",
        "reasoning_effort",
        "logit_bias",
        "metadata",
        "store",
    )
    response = server.post({"messages": [USER], **dict.fromkeys(fields)})
    assert response.status_code == 200, response.text
