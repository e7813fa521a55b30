"""Synthetic conversations, one builder per skill, deterministic from a random generator.

A conversation is what a client would send (messages, tools, thinking on or off, pictures) with every assistant message
written out: those are what a checkpoint learns. ``held_out`` builders use only values that training never saw.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from demo.chats import build_chat, build_continue, build_cuts, build_extract, build_form, build_sums
from demo.conversation import Conversation, Message, assistant, open_neutrally
from demo.lists import list_exchanges, tool_exchanges
from demo.picture_questions import ask_pair, ask_picture
from demo.pictures import make_picture
from demo.questions import Answer, ask_anything
from demo.styles import WORD_LINES, Style, full
from demo.tools import ToolUse, make_tools, make_use, pair_request_text, request_text


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
    open_neutrally(rng, conversation)
    for _ in range(turns or (1 if conversation.thinking else rng.choice((1, 2, 3, 4)))):
        if turns is None and rng.random() < 0.12:
            answer = ask_anything(rng, held_out=held_out)
            conversation.messages += [{"role": "user", "content": answer.question}, assistant(answer, answer.full, thinking=conversation.thinking)]
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
    open_neutrally(rng, conversation)
    picture = make_picture(rng)
    conversation.pictures.append(picture)
    style: Style = full
    if rng.random() < 0.12:
        conversation.messages = [{"role": "system", "content": rng.choice(WORD_LINES)}]
        style = _short
    for turn in range(1 if conversation.thinking else rng.choice((1, 2, 3, 4))):
        answer = ask_picture(rng, picture)
        content: Any = _with_pictures(rng, answer.question, [0]) if turn == 0 else answer.question
        conversation.messages += [{"role": "user", "content": content}, assistant(answer, style(answer), thinking=conversation.thinking)]
    return conversation


def build_two_pictures(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Two pictures and one to three questions that tell them apart."""
    del held_out
    conversation = Conversation("two_pictures", thinking=rng.random() < 0.12)
    open_neutrally(rng, conversation)
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
        conversation.messages += [{"role": "user", "content": content}, assistant(answer, answer.full, thinking=conversation.thinking)]
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
    open_neutrally(rng, conversation)
    for _ in range(3):
        add_tool_exchange(rng, conversation, held_out=held_out, pair=True, same=0.3)
    return conversation


def build_list(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """A list of names and many questions which one is about what."""
    del held_out
    messages, names = list_exchanges(rng)
    return Conversation("list", messages, names=names)


def build_tool_names(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Several made-up tools and questions for their names."""
    del held_out
    tools = make_tools(rng, rng.choice((4, 5, 6)), made_up=1.0)
    return Conversation("tool_names", tool_exchanges(rng, tools), tools)


def build_which(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Two pictures that differ in shape and colour, and many questions which one shows what."""
    del held_out
    conversation = Conversation("which")
    open_neutrally(rng, conversation)
    first, second = make_picture(rng), make_picture(rng)
    while second.shape == first.shape or second.color == first.color:
        second = make_picture(rng)
    conversation.pictures += [first, second]
    for turn in range(10):
        answer = ask_pair(rng, first, second, kinds=2)
        content: Any = _with_pictures(rng, answer.question, [0, 1]) if turn == 0 else answer.question
        conversation.messages += [{"role": "user", "content": content}, assistant(answer, answer.full, thinking=False)]
    return conversation


BUILDERS: Final[dict[str, Callable[..., Conversation]]] = {
    "chat": build_chat,
    "form": build_form,
    "sums": build_sums,
    "extract": build_extract,
    "continue": build_continue,
    "spell": partial(build_continue, at_word_end=0.2),
    "cuts": build_cuts,
    "tool": build_tool,
    "choice": build_choice,
    "pair": build_pair,
    "list": build_list,
    "tool_names": build_tool_names,
    "picture": build_picture,
    "two_pictures": build_two_pictures,
    "which": build_which,
}
