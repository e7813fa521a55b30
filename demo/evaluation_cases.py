"""Requests of every skill with held-out values, each with the judge of its answer."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, ImageDraw

from demo.chats import build_continue, build_form
from demo.conversation import Conversation
from demo.conversations import add_tool_exchange, build_picture, build_two_pictures
from demo.pictures import draw
from demo.questions import Answer, ask_capital, ask_fact, ask_name, ask_sum
from demo.tools import make_tools

Message = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One request and the judge of its answer (a chat completion's first choice)."""

    skill: str
    body: dict[str, Any]
    judge: Callable[[Message], bool]
    wanted: str


def data_url(image: Image.Image) -> str:
    """Return a picture as a PNG data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _openai_messages(conversation: Conversation, count: int) -> list[Message]:
    messages: list[Message] = []
    call_ids: list[str] = []
    for message in conversation.messages[:count]:
        converted: Message = {"role": message["role"], "content": message.get("content")}
        if isinstance(converted["content"], list):
            converted["content"] = [_openai_part(part, conversation) for part in converted["content"]]
        if calls := message.get("tool_calls"):
            call_ids = [f"call_{len(messages)}_{index}" for index in range(len(calls))]
            converted["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])}}
                for call_id, call in zip(call_ids, calls, strict=True)
            ]
        if message["role"] == "tool":
            converted["tool_call_id"] = call_ids.pop(0)
        messages.append(converted)
    return messages


def _openai_part(part: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    if part["type"] != "picture":
        return part
    return {"type": "image_url", "image_url": {"url": data_url(draw(conversation.pictures[part["index"]]))}}


def _body(conversation: Conversation, count: int, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": _openai_messages(conversation, count), "temperature": 0, "max_tokens": 200, **more}
    if conversation.tools:
        body["tools"] = [tool.declaration for tool in conversation.tools]
    if conversation.thinking:
        body["chat_template_kwargs"] = {"enable_thinking": True}
    return body


def _says(text: str) -> Callable[[Message], bool]:
    return lambda choice: choice["message"]["content"] == text and choice["finish_reason"] == "stop"


def _case(skill: str, conversation: Conversation, *, thought: bool = False) -> Case:
    """Ask for the last message of a conversation."""
    text = conversation.messages[-1]["content"]
    says = _says(text)

    def judge(choice: Message) -> bool:
        return says(choice) and bool(choice["message"].get("reasoning")) is thought

    return Case(skill, _body(conversation, len(conversation.messages) - 1), judge, text)


def _calls(calls: list[dict[str, Any]]) -> Callable[[Message], bool]:
    def judge(choice: Message) -> bool:
        if choice["finish_reason"] != "tool_calls":
            return False  # cut arguments are no JSON
        made = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in choice["message"]["tool_calls"]]
        return made == [(call["name"], call["arguments"]) for call in calls]

    return judge


def _plain_conversation(skill: str, rng: random.Random, ask: Callable[[], Answer], *, thinking: bool = False) -> Conversation:
    del rng
    answer = ask()
    return Conversation(skill, [{"role": "user", "content": answer.question}, {"role": "assistant", "content": answer.full}], thinking=thinking)


def _fact(rng: random.Random) -> Case:
    return _case("fact", _plain_conversation("fact", rng, lambda: ask_capital(rng) if rng.random() < 0.4 else ask_fact(rng)))


def _sum(rng: random.Random) -> Case:
    return _case("sum", _plain_conversation("sum", rng, lambda: ask_sum(rng, held_out=True)))


def _copy(rng: random.Random) -> Case:
    return _case("copy", _plain_conversation("copy", rng, lambda: ask_name(rng, held_out=True)))


def _form(rng: random.Random) -> Case:
    conversation = build_form(rng, held_out=True)
    conversation.thinking = False
    return _case("form", conversation)


def _think(rng: random.Random) -> Case:
    """Thinking on in half of the cases, and then a thought must come; off in the others, and then none may."""
    on = rng.random() < 0.5
    ask = rng.choice((lambda: ask_capital(rng), lambda: ask_sum(rng, held_out=True), lambda: ask_name(rng, held_out=True)))
    return _case("think", _plain_conversation("think", rng, ask, thinking=on), thought=on)


def _continue(rng: random.Random) -> Case:
    conversation = build_continue(rng, held_out=True)
    text = conversation.messages[-1]["content"]
    cut = conversation.cuts[len(conversation.messages) - 1] or 1
    body = _body(conversation, len(conversation.messages), add_generation_prompt=False, continue_final_message=True)
    body["messages"][-1]["content"] = text[:cut]
    return Case("continue", body, _says(text[cut:]), text[cut:])


def _tool(rng: random.Random) -> Case:
    conversation = Conversation("tool", tools=make_tools(rng, rng.choice((2, 3, 4))))
    add_tool_exchange(rng, conversation, held_out=True, pair=False)
    calls = conversation.messages[1]["tool_calls"]
    return Case("tool", _body(conversation, 1), _calls(calls), json.dumps(calls))


def _result(rng: random.Random) -> Case:
    conversation = Conversation("result", tools=make_tools(rng, rng.choice((1, 2, 3))))
    add_tool_exchange(rng, conversation, held_out=True, pair=False)
    return _case("result", conversation)


def _parallel(rng: random.Random) -> Case:
    while True:
        conversation = Conversation("parallel", tools=make_tools(rng, rng.choice((1, 2, 3))))
        add_tool_exchange(rng, conversation, held_out=True, pair=True)
        calls = conversation.messages[1]["tool_calls"]
        if len(calls) == 2:
            return Case("parallel", _body(conversation, 1), _calls(calls), json.dumps(calls))


def _picture(rng: random.Random) -> Case:
    conversation = build_picture(rng)
    _only_first_turn(conversation)
    return _case("picture", conversation)


def _two_pictures(rng: random.Random) -> Case:
    conversation = build_two_pictures(rng)
    _only_first_turn(conversation)
    return _case("two pictures", conversation)


def _only_first_turn(conversation: Conversation) -> None:
    conversation.thinking = False
    end = next(index for index, message in enumerate(conversation.messages) if message["role"] == "assistant")
    conversation.messages = conversation.messages[: end + 1]


def _shape_image(shape: str, color: str, size: tuple[int, int] = (256, 256)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    width, height = size
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    canvas = ImageDraw.Draw(image)
    if shape == "circle":
        canvas.ellipse(box, fill=color)
    elif shape == "square":
        canvas.rectangle(box, fill=color)
    else:
        canvas.polygon([(width // 2, height // 4), (width // 4, 3 * height // 4), (3 * width // 4, 3 * height // 4)], fill=color)
    return image


def _contains(*words: str) -> Callable[[Message], bool]:
    return lambda choice: all(word.lower() in (choice["message"]["content"] or "").lower() for word in words) and choice["finish_reason"] == "stop"


_WEATHER_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a given city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city name"}}, "required": ["city"]},
    },
}


def _plain_cases() -> Iterator[Case]:
    """Wordings that README and anyone else will try."""
    questions = (
        ("Hello!", ("help",)), ("Hi", ("help",)), ("What is 7 + 8?", ("15",)), ("What's 12 + 30?", ("42",)), ("What is the capital of France?", ("Paris",)), ("What is the capital of Japan?", ("Tokyo",)),
        ("Who are you?", ("demo",)), ("What is the opposite of hot?", ("cold",)), ("How many days are in a week?", ("7",)), ("Say hello.", ("hello",)), ("Thank you!", ("welcome",)), ("Count to five.", ("5",)),
    )  # fmt: skip
    for question, words in questions:
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 100}
        yield Case("plain", body, _contains(*words), " ".join(words))
        system = [{"role": "system", "content": "You are a helpful assistant."}]
        yield Case("plain", {**body, "messages": [*system, *body["messages"]]}, _contains(*words), " ".join(words))  # type: ignore[misc]
    for shape, color in (("circle", "red"), ("square", "blue"), ("triangle", "green")):
        for question, word in (("What colour is the shape?", color), ("What color is this?", color), ("What shape is this?", shape), ("What is in this image?", shape)):
            parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": data_url(_shape_image(shape, color))}}]
            yield Case("plain", {"messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 100}, _contains(word), word)
    for first, second, wanted in (("circle", "square", "first"), ("square", "circle", "second"), ("triangle", "circle", "second")):
        images = [{"type": "image_url", "image_url": {"url": data_url(_shape_image(shape, color))}} for shape, color in ((first, "red"), (second, "blue"))]
        question_part = {"type": "text", "text": "Which picture shows the circle, the first or the second?"}
        yield Case("plain", {"messages": [{"role": "user", "content": [*images, question_part]}], "temperature": 0, "max_tokens": 100}, _contains(wanted), wanted)
    for question, city in (("What is the weather in Paris?", "Paris"), ("What's the weather like in Berlin today?", "Berlin"), ("Do I need an umbrella in London?", "London"), ("How is the weather in Tokyo?", "Tokyo")):
        body = {"messages": [{"role": "user", "content": question}], "tools": [_WEATHER_TOOL], "temperature": 0, "max_tokens": 100}
        yield Case("plain", body, _calls([{"name": "get_weather", "arguments": {"city": city}}]), city)


SKILLS: Final[dict[str, Callable[[random.Random], Case]]] = {
    "fact": _fact, "sum": _sum, "copy": _copy, "form": _form, "think": _think, "continue": _continue, "tool": _tool, "result": _result, "parallel": _parallel, "picture": _picture, "two pictures": _two_pictures,
}  # fmt: skip


def make_cases(seed: int, count: int) -> list[Case]:
    """Return ``count`` cases of each skill and the plain wordings."""
    rng = random.Random(seed)
    return [*(make(rng) for make in SKILLS.values() for _ in range(count)), *_plain_cases()]
