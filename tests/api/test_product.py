"""The real product, launcher to model, through the official SDK: what users do with it, and what a crash does."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import time
from typing import Any

import openai
import PIL.Image
import PIL.ImageDraw
import pytest
import requests

from tests.conftest import Product, StartProduct
from tests.fakes.measuring import best
from tests.fakes.processes import wait_until

MODEL = "demo-moe"
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 200}
THINKING = {"chat_template_kwargs": {"enable_thinking": True}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city"}},
            "required": ["city"],
        },
    },
}
LONG: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 7000,
    "stream": True,
    "ignore_eos": True,
}


def user(content: Any) -> list[Any]:
    """Return a conversation of one user message."""
    return [{"role": "user", "content": content}]


def picture(colour: str, shape: str) -> dict[str, Any]:
    """Return a content part with one coloured shape on white."""
    image = PIL.Image.new("RGB", (192, 192), "white")
    canvas = PIL.ImageDraw.Draw(image)
    box = (40, 40, 152, 152)
    if shape == "circle":
        canvas.ellipse(box, fill=colour)
    else:
        canvas.rectangle(box, fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def text_of(answer: Any) -> str:
    """Return the text of the only choice."""
    return str(answer.choices[0].message.content)


REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"messages": user("What is the capital of France?")},
    "system": {"messages": [{"role": "system", "content": "Answer in capital letters."}, *user("Hello!")]},
    "thinking": {"messages": user("What is 7 + 8?"), "extra_body": THINKING},
    "tool": {"messages": user("What is the weather in Paris?"), "tools": [WEATHER]},
    "picture": {
        "messages": user([{"type": "text", "text": "What colour is the shape?"}, picture("red", "circle")]),
    },
    "sampled": {"messages": user("Hello!"), "temperature": 1.0, "seed": 7},
}


@pytest.mark.parametrize("name", REQUESTS)
def test_streamed_text_equals_unstreamed_text(product: Product, name: str) -> None:
    """The joined stream is the whole answer: text, thought, calls, reason and usage."""
    request = {**GREEDY, **REQUESTS[name]}
    create = product.client.chat.completions.create
    whole = create(**request)
    content = reasoning = arguments = ""
    names = []
    reason = usage = None
    for chunk in create(**request, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning", None) or ""
            for call in choice.delta.tool_calls or ():
                arguments += call.function.arguments or ""
                names += [call.function.name] if call.function.name else []
            reason = choice.finish_reason or reason
    message = whole.choices[0].message
    assert content == (message.content or "")
    assert reasoning == (getattr(message, "reasoning", None) or "")
    assert names == [call.function.name for call in message.tool_calls or ()]
    assert arguments == "".join(call.function.arguments for call in message.tool_calls or ())
    assert reason == whole.choices[0].finish_reason
    assert usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens


def test_plain_questions(product: Product) -> None:
    """The demo model answers what the README tries, and stops by itself."""
    create = product.client.chat.completions.create
    for question, wanted in (("What is 7 + 8?", "15"), ("What is the capital of France?", "Paris")):
        answer = create(**GREEDY, messages=user(question))
        assert wanted in text_of(answer)
        assert answer.choices[0].finish_reason == "stop"


def test_thinking_is_reasoning(product: Product) -> None:
    """With thinking on the thought is beside the answer, never in it; off is the default."""
    create = product.client.chat.completions.create
    answer = create(**GREEDY, messages=user("What is 7 + 8?"), extra_body=THINKING)
    message = answer.choices[0].message
    assert message.reasoning
    assert message.reasoning == message.reasoning_content
    assert text_of(answer).count("7 + 8") == 1
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    plain = create(**GREEDY, messages=user("What is 7 + 8?"))
    assert getattr(plain.choices[0].message, "reasoning", None) is None
    assert plain.usage.completion_tokens_details.reasoning_tokens == 0


def test_tool_loop(product: Product) -> None:
    """A declared tool is called with the asked city, and its result is used in the answer."""
    create = product.client.chat.completions.create
    messages = user("What is the weather in Paris?")
    first = create(**GREEDY, messages=messages, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    messages += [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"temperature": 21, "condition": "sunny"})},
    ]
    final = create(**GREEDY, messages=messages, tools=[WEATHER])
    assert final.choices[0].finish_reason == "stop"
    assert "21" in text_of(final)


def test_picture(product: Product) -> None:
    """The model sees the colour of a picture sent by ``data:`` URL, and the picture counts as prompt."""
    question = [{"type": "text", "text": "What colour is the shape?"}, picture("red", "circle")]
    answer = product.client.chat.completions.create(**GREEDY, messages=user(question))
    assert "red" in text_of(answer).lower()
    assert answer.usage.prompt_tokens > 256


def test_continuation(product: Product) -> None:
    """A begun answer is gone on with; together they are the answer."""
    answer = product.client.chat.completions.create(
        **GREEDY,
        messages=[*user("What is the capital of France?"), {"role": "assistant", "content": "The capital of"}],
        extra_body={"add_generation_prompt": False, "continue_final_message": True},
    )
    assert "Paris" in text_of(answer)
    assert not text_of(answer).startswith("The capital of")


def test_same_seed_same_answer(product: Product) -> None:
    """A seed makes a sampled answer repeatable."""
    request = {"model": MODEL, "messages": user("Hello!"), "temperature": 1.5, "seed": 3, "max_tokens": 40}
    create = product.client.chat.completions.create
    assert text_of(create(**request)) == text_of(create(**request))


def test_constrained_answer(product: Product) -> None:
    """A JSON schema is obeyed at any temperature."""
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
        "required": ["ok", "kind"],
        "additionalProperties": False,
    }
    answer = product.client.chat.completions.create(
        model=MODEL,
        messages=user("Hello!"),
        temperature=1.5,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    value = json.loads(text_of(answer))
    assert isinstance(value["ok"], bool)
    assert value["kind"] in {"a", "b"}


def test_constrained_answer_that_has_begun(product: Product) -> None:
    """It is gone on with under its schema, also in a stream; a beginning that does not fit is refused by its field."""
    schema = {"type": "object", "properties": {"kind": {"enum": ["apple", "anvil"]}}, "required": ["kind"]}
    fields: dict[str, Any] = {
        "model": MODEL,
        "temperature": 1.5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "extra_body": {"add_generation_prompt": False, "continue_final_message": True},
    }
    create = product.client.chat.completions.create
    begun = '{"kind":"an'
    answer = create(**fields, messages=[*user("Hello!"), {"role": "assistant", "content": begun}])
    assert text_of(answer) == 'vil"}'
    with pytest.raises(openai.BadRequestError) as error:
        create(**fields, messages=[*user("Hello!"), {"role": "assistant", "content": "Sure! {"}], stream=True)
    assert error.value.param == "continue_final_message"


def test_barred_words_never_come(product: Product) -> None:
    """What the model would say is said otherwise, or not at all."""
    create = product.client.chat.completions.create
    usual = text_of(create(**GREEDY, messages=user("Hello!")))
    word = max(re.findall("[A-Za-z]+", usual), key=len)
    answer = text_of(create(**GREEDY, messages=user("Hello!"), extra_body={"bad_words": [word]}))
    assert word in usual
    assert word not in answer


def test_broken_picture_and_bad_role_are_400(product: Product) -> None:
    """Faults of a request are refused before the engine sees them."""
    create = product.client.chat.completions.create
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.BadRequestError) as picture_error:
        create(**GREEDY, messages=user([broken]))
    assert picture_error.value.param == "messages.0.content.0"
    with pytest.raises(openai.BadRequestError) as role_error:
        create(**GREEDY, messages=[*user("Hi"), {"role": "assistant", "content": "Hello"}])
    assert role_error.value.param == "messages.1.role"


def test_client_that_leaves_frees_the_only_slot(start_product: StartProduct) -> None:
    """With one slot and no queue a second request is a 429 while the first runs, and answered once its client left."""
    with start_product(NIM_MAX_NUM_SEQS="1", NIM_MAX_QUEUED="0") as product:
        url = f"{product.base_url}/v1/chat/completions"
        short = {"model": MODEL, "messages": user("Hello!"), "max_tokens": 5}
        with requests.post(url, json=LONG, stream=True, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            busy = requests.post(url, json=short, timeout=60)
            assert busy.status_code == 429
            assert busy.json()["error"]["code"] == "queue_full"
            assert busy.headers["retry-after"]
            assert next(lines) is not None
        wait_until(lambda: requests.post(url, json=short, timeout=60).ok, what="a free slot")


def test_killed_engine_is_a_clean_error_and_comes_back(start_product: StartProduct) -> None:
    """``kill -9`` on the engine: the stream ends with an error event, ready is 503, and within 10 s 200 again.

    On a machine so busy that the first start took longer than usual, the next one may as well.
    """
    began = time.monotonic()
    with start_product(NIM_MAX_ENGINE_RESTARTS="100") as product:
        bound = max(10, 4 * (time.monotonic() - began))
        assert best(lambda: _seconds_without_engine(product), below=bound) < bound
        answer = product.client.chat.completions.create(**GREEDY, messages=user("What is the capital of France?"))
        assert "Paris" in text_of(answer)


def _seconds_without_engine(product: Product) -> float:
    """Kill the engine under a stream; return how long it took until another one was ready."""
    url = f"{product.base_url}/v1/chat/completions"
    (engine,) = product.children("engine")
    with requests.post(url, json=LONG, stream=True, timeout=60) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        next(lines)
        os.kill(engine, signal.SIGKILL)
        killed = time.monotonic()
        rest = [line for line in lines if line]
    assert json.loads(rest[-2].removeprefix(b"data: "))["error"]["code"] == "engine_unavailable"
    assert rest[-1] == b"data: [DONE]"
    wait_until(lambda: product.children("engine") not in ([], [engine]), what="another engine")
    wait_until(product.is_ready, what="ready again")
    return time.monotonic() - killed
