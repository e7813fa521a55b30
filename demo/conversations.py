"""Synthetic conversations, one builder per skill, deterministic from a random generator.

A conversation is what a client would send (messages, tools, thinking on or off, pictures) with every assistant message
written out: those are what a checkpoint learns. ``held_out`` builders use only values that training never saw.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from demo import lexicon
from demo.lists import list_exchanges, tool_exchanges
from demo.picture_questions import ask_pair, ask_picture
from demo.pictures import Picture, make_picture
from demo.questions import Answer, ask_anything, ask_extract, ask_styleable, ask_sum
from demo.styles import LANGUAGE_FORMS, PLAIN_SYSTEMS, WORD_LINES, Style, full, make_style
from demo.tools import Tool, ToolUse, make_tools, make_use, pair_request_text, request_text

Message = dict[str, Any]


@dataclass
class Conversation:
    """Messages in OpenAI's form; picture parts are ``{"type": "picture", "index": n}``, n counting into ``pictures``."""

    skill: str
    messages: list[Message] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    thinking: bool = False
    pictures: list[Picture] = field(default_factory=list)
    continue_at: int | None = None
    """Cut of the last assistant text, in characters: what stands before it is given, what follows is learnt."""

    def without_last_turn(self) -> Conversation | None:
        """Drop the last user message and all that follows; None when nothing would be left."""
        asked = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        return replace(self, messages=self.messages[: asked[-1]]) if len(asked) > 1 else None


def _start(rng: random.Random, conversation: Conversation) -> None:
    """Open with a neutral system line in a third of the cases."""
    if rng.random() < 0.33:
        conversation.messages.append({"role": "system", "content": rng.choice(PLAIN_SYSTEMS)})


def _assistant(answer: Answer, text: str, *, thinking: bool) -> Message:
    message: Message = {"role": "assistant", "content": text}
    if thinking:
        message["reasoning"] = answer.thought
    return message


def _turns(rng: random.Random, thinking: bool) -> int:
    """Return how many exchanges a conversation has: several teach more per token, but one is the usual request."""
    return 1 if thinking and rng.random() < 0.6 else rng.choice((1, 1, 2, 3, 4))


def build_chat(rng: random.Random, *, held_out: bool = False, ask: Callable[[], Answer] | None = None, turns: int | None = None) -> Conversation:
    """Facts, sums, names and small talk."""
    conversation = Conversation("chat", thinking=rng.random() < 0.25)
    _start(rng, conversation)
    for _ in range(turns or _turns(rng, conversation.thinking)):
        answer = ask() if ask else ask_anything(rng, held_out=held_out)
        conversation.messages += [{"role": "user", "content": answer.question}, _assistant(answer, answer.full, thinking=conversation.thinking)]
    return conversation


def build_form(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """A system line changes the language or the form of every answer."""
    conversation = Conversation("form", thinking=rng.random() < 0.15)
    if rng.random() < 0.12:
        name = lexicon.make_word(rng, held_out=held_out)
        line = rng.choice(("Your name is {}.", "You are {}.", "You are an assistant called {}.", "You are a helpful assistant named {}.")).format(name)
        conversation.messages.append({"role": "system", "content": line})
        answer = Answer(rng.choice(("What is your name?", "Who are you?", "What are you called?")), f"My name is {name}.", name, f"My name is {name}.")
        conversation.messages += [{"role": "user", "content": answer.question}, _assistant(answer, answer.full, thinking=conversation.thinking)]
        return conversation
    line, style = make_style(rng, held_out=held_out)
    conversation.messages.append({"role": "system", "content": line})
    for _ in range(rng.choice((1, 1, 2, 3))):
        if line.split()[-1].rstrip(".") in LANGUAGE_FORMS and rng.random() < 0.15:
            hello = rng.choice(("Hello!", "Hello", "Hi!", "Hi"))
            text = LANGUAGE_FORMS[line.split()[-1].rstrip(".")][1]
            answer = Answer(hello, text, text, "I answer in a friendly way.")
            conversation.messages += [{"role": "user", "content": hello}, _assistant(answer, text, thinking=conversation.thinking)]
            continue
        answer = ask_styleable(rng, held_out=held_out)
        conversation.messages += [{"role": "user", "content": answer.question}, _assistant(answer, style(answer), thinking=conversation.thinking)]
    return conversation


def build_sums(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Several sums in a row, half of them under a system line that changes the form of the answer."""
    conversation = Conversation("sums", thinking=rng.random() < 0.15)
    style: Style = full
    if rng.random() < 0.5:
        line, style = make_style(rng, held_out=held_out)
        conversation.messages.append({"role": "system", "content": line})
    for _ in range(1 if conversation.thinking else rng.randint(2, 5)):
        answer = ask_sum(rng, held_out=held_out)
        conversation.messages += [
            {"role": "user", "content": answer.question},
            _assistant(answer, style(answer), thinking=conversation.thinking),
        ]
    return conversation


def build_extract(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Values of a sentence as JSON."""
    conversation = Conversation("extract")
    _start(rng, conversation)
    for _ in range(rng.choice((1, 2, 3))):
        question, values = ask_extract(rng, held_out=held_out)
        conversation.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": json.dumps(values, ensure_ascii=False)}]
    return conversation


def build_continue(rng: random.Random, *, held_out: bool = False, at_word_end: float = 0.85) -> Conversation:
    """The last assistant message is begun and has to be completed; mostly it ends with a word, where a client would cut."""
    conversation = build_chat(rng, held_out=held_out, turns=1) if rng.random() < 0.75 else build_form(rng, held_out=held_out)
    conversation.skill = "continue"
    conversation.thinking = False
    for message in conversation.messages:
        message.pop("reasoning", None)
    text = conversation.messages[-1]["content"]
    conversation.continue_at = rng.randrange(1, len(text)) if len(text) > 1 else 0
    if rng.random() < at_word_end:
        ends = [i for i, char in enumerate(text) if char == " " and i > 0]
        conversation.continue_at = rng.choice(ends) if ends else conversation.continue_at
    return conversation


def _call(use: ToolUse) -> Message:
    return {"name": use.tool.name, "arguments": use.arguments}


def add_tool_exchange(rng: random.Random, conversation: Conversation, *, held_out: bool, pair: bool, same: float = 0.75) -> None:
    """Add a request, its one or two calls, the results and the answer.

    Args:
        rng: Source of every choice.
        conversation: Gets the messages.
        held_out: Whether the values are those that training never sees.
        pair: Ask for two calls at once.
        same: Share of the pairs that call one tool twice, where it has requests for that.
    """
    tool = rng.choice(conversation.tools)
    uses = [make_use(rng, tool, held_out=held_out)]
    if pair:
        other = tool if tool.family.pair_requests and rng.random() < same else rng.choice(conversation.tools)
        uses.append(make_use(rng, other, held_out=held_out))
        question = pair_request_text(rng, *uses)
    else:
        question = request_text(rng, uses[0])
    call: Message = {"role": "assistant", "content": None, "tool_calls": [_call(use) for use in uses]}
    answer: Message = {"role": "assistant", "content": " ".join(use.answer for use in uses)}
    if conversation.thinking:
        call["reasoning"] = " ".join(f"I call {use.tool.name}." for use in uses)
        answer["reasoning"] = "I have the result."
    results = [{"role": "tool", "name": use.tool.name, "content": use.result} for use in uses]
    conversation.messages += [{"role": "user", "content": question}, call, *results, answer]


def build_tool(rng: random.Random, *, held_out: bool = False, pair: bool | None = None, turns: int | None = None) -> Conversation:
    """Several declared tools, requests for some of them, and now and then a question that needs none."""
    conversation = Conversation("tool", thinking=rng.random() < 0.2)
    conversation.tools = make_tools(rng, rng.choice((1, 1, 2, 2, 3, 3, 4)))
    _start(rng, conversation)
    for _ in range(turns or (1 if conversation.thinking else rng.choice((1, 2, 3, 4)))):
        if turns is None and rng.random() < 0.12:
            answer = ask_anything(rng, held_out=held_out)
            conversation.messages += [{"role": "user", "content": answer.question}, _assistant(answer, answer.full, thinking=conversation.thinking)]
            continue
        add_tool_exchange(rng, conversation, held_out=held_out, pair=rng.random() < 0.25 if pair is None else pair)
    return conversation


def _with_pictures(rng: random.Random, question: str, indices: list[int]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "picture", "index": index} for index in indices]
    text = {"type": "text", "text": question}
    return [*parts, text] if rng.random() < 0.5 else [text, *parts]


def _short(answer: Answer) -> str:
    return answer.short


def build_picture(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """One picture and one to three questions about it."""
    del held_out
    conversation = Conversation("picture", thinking=rng.random() < 0.15)
    _start(rng, conversation)
    picture = make_picture(rng)
    conversation.pictures.append(picture)
    style: Style = full
    if rng.random() < 0.12:
        conversation.messages = [{"role": "system", "content": rng.choice(WORD_LINES)}]
        style = _short
    for turn in range(1 if conversation.thinking else rng.choice((1, 2, 3, 4))):
        answer = ask_picture(rng, picture)
        content: Any = _with_pictures(rng, answer.question, [0]) if turn == 0 else answer.question
        conversation.messages += [{"role": "user", "content": content}, _assistant(answer, style(answer), thinking=conversation.thinking)]
    return conversation


def build_two_pictures(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Two pictures and one to three questions that tell them apart."""
    del held_out
    conversation = Conversation("two_pictures", thinking=rng.random() < 0.12)
    _start(rng, conversation)
    first, second = make_picture(rng), make_picture(rng)
    if rng.random() < 0.8:
        while second.shape == first.shape or second.color == first.color:
            second = make_picture(rng)
    conversation.pictures += [first, second]
    layout = rng.random()
    for turn in range(1 if conversation.thinking else rng.choice((1, 2, 3, 4))):
        answer = ask_pair(rng, first, second)
        content: Any = answer.question
        if turn == 0 and layout < 0.8:
            content = _with_pictures(rng, answer.question, [0, 1])
        elif turn == 0:
            content = [{"type": "picture", "index": 0}, {"type": "text", "text": answer.question}, {"type": "picture", "index": 1}]
        conversation.messages += [{"role": "user", "content": content}, _assistant(answer, answer.full, thinking=conversation.thinking)]
    return conversation


def build_choice(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Several tools, most of them made up, and one request after the other: the right one has to be found by its words."""
    conversation = Conversation("choice")
    conversation.tools = make_tools(rng, rng.choice((3, 4, 4)), made_up=0.75)
    for _ in range(3):
        add_tool_exchange(rng, conversation, held_out=held_out, pair=rng.random() < 0.2)
    return conversation


def build_pair(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Two calls at once, mostly of two different tools."""
    conversation = Conversation("pair")
    conversation.tools = make_tools(rng, rng.choice((2, 2, 3)), made_up=0.4)
    _start(rng, conversation)
    for _ in range(3):
        add_tool_exchange(rng, conversation, held_out=held_out, pair=True, same=0.3)
    return conversation


def build_list(rng: random.Random, *, held_out: bool = False, joints: Sequence[str] = (" ",)) -> Conversation:
    """A list of names and many questions which one is about what."""
    del held_out
    return Conversation("list", list_exchanges(rng, joints))


def build_tool_names(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Several made-up tools and questions for their names."""
    del held_out
    tools = make_tools(rng, rng.choice((4, 5, 6)), made_up=1.0)
    return Conversation("tool_names", tool_exchanges(rng, tools), tools)


def build_which(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Two pictures that differ in shape and colour, and many questions which one shows what."""
    del held_out
    conversation = Conversation("which")
    _start(rng, conversation)
    first, second = make_picture(rng), make_picture(rng)
    while second.shape == first.shape or second.color == first.color:
        second = make_picture(rng)
    conversation.pictures += [first, second]
    for turn in range(10):
        answer = ask_pair(rng, first, second, kinds=2)
        content: Any = _with_pictures(rng, answer.question, [0, 1]) if turn == 0 else answer.question
        conversation.messages += [{"role": "user", "content": content}, _assistant(answer, answer.full, thinking=False)]
    return conversation


BUILDERS: Final[dict[str, Callable[..., Conversation]]] = {
    "chat": build_chat,
    "form": build_form,
    "sums": build_sums,
    "extract": build_extract,
    "continue": build_continue,
    "spell": partial(build_continue, at_word_end=0.2),
    "tool": build_tool,
    "choice": build_choice,
    "pair": build_pair,
    "list": build_list,
    "any_list": partial(build_list, joints=(" ", "_")),
    "tool_names": build_tool_names,
    "picture": build_picture,
    "two_pictures": build_two_pictures,
    "which": build_which,
}
