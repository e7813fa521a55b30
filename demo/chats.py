"""Builders of conversations in words alone: questions, forms, sums, extraction, and answers that are begun already."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial

from demo import lexicon
from demo.conversation import Conversation, assistant, open_neutrally
from demo.questions import Answer, ask_anything, ask_extract, ask_name, ask_styleable, ask_sum
from demo.styles import LANGUAGE_FORMS, Style, full, make_style


def _count_turns(rng: random.Random, thinking: bool) -> int:
    """Return how many exchanges a conversation has: several teach more per token, but one is the usual request."""
    return 1 if thinking and rng.random() < 0.6 else rng.choice((1, 1, 2, 3, 4))


def build_chat(rng: random.Random, *, held_out: bool = False, ask: Callable[[], Answer] | None = None, turns: int | None = None) -> Conversation:
    """Facts, sums, names and small talk."""
    conversation = Conversation("chat", thinking=rng.random() < 0.25)
    open_neutrally(rng, conversation)
    for _ in range(turns or _count_turns(rng, conversation.thinking)):
        answer = ask() if ask else ask_anything(rng, held_out=held_out)
        conversation.messages += [{"role": "user", "content": answer.question}, assistant(answer, answer.full, thinking=conversation.thinking)]
    return conversation


def build_form(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """A system line changes the language or the form of every answer."""
    conversation = Conversation("form", thinking=rng.random() < 0.15)
    if rng.random() < 0.12:
        name = lexicon.make_word(rng, held_out=held_out)
        line = rng.choice(("Your name is {}.", "You are {}.", "You are an assistant called {}.", "You are a helpful assistant named {}.")).format(name)
        conversation.messages.append({"role": "system", "content": line})
        answer = Answer(rng.choice(("What is your name?", "Who are you?", "What are you called?")), f"My name is {name}.", name, f"My name is {name}.")
        conversation.messages += [{"role": "user", "content": answer.question}, assistant(answer, answer.full, thinking=conversation.thinking)]
        return conversation
    line, style = make_style(rng, held_out=held_out)
    conversation.messages.append({"role": "system", "content": line})
    for _ in range(rng.choice((1, 1, 2, 3))):
        if line.split()[-1].rstrip(".") in LANGUAGE_FORMS and rng.random() < 0.15:
            hello = rng.choice(("Hello!", "Hello", "Hi!", "Hi"))
            text = LANGUAGE_FORMS[line.split()[-1].rstrip(".")][1]
            answer = Answer(hello, text, text, "I answer in a friendly way.")
            conversation.messages += [{"role": "user", "content": hello}, assistant(answer, text, thinking=conversation.thinking)]
            continue
        answer = ask_styleable(rng, held_out=held_out)
        conversation.messages += [{"role": "user", "content": answer.question}, assistant(answer, style(answer), thinking=conversation.thinking)]
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
            assistant(answer, style(answer), thinking=conversation.thinking),
        ]
    return conversation


def build_extract(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Values of a sentence as JSON."""
    conversation = Conversation("extract")
    open_neutrally(rng, conversation)
    for _ in range(rng.choice((1, 2, 3))):
        question, values = ask_extract(rng, held_out=held_out)
        conversation.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": json.dumps(values, ensure_ascii=False)}]
    return conversation


def build_continue(rng: random.Random, *, held_out: bool = False, at_word_end: float = 0.85) -> Conversation:
    """The last assistant message is begun and has to be completed; mostly it ends with a word, where a client would cut."""
    conversation = build_chat(rng, held_out=held_out, turns=1) if rng.random() < 0.75 else build_form(rng, held_out=held_out)
    conversation.skill = "continue"
    _stop_thinking(conversation)
    text = conversation.messages[-1]["content"]
    cut = rng.randrange(1, len(text)) if len(text) > 1 else 0
    if rng.random() < at_word_end:
        ends = [i for i, char in enumerate(text) if char == " " and i > 0]
        cut = rng.choice(ends) if ends else cut
    conversation.cuts[len(conversation.messages) - 1] = cut
    return conversation


def build_cuts(rng: random.Random, *, held_out: bool = False) -> Conversation:
    """Every assistant message is begun, mostly inside a word: to go on there is hard, and so there is more of it in each conversation."""
    ask = partial(rng.choice((ask_anything, ask_name, ask_name)), rng, held_out=held_out)
    conversation = build_chat(rng, held_out=held_out, ask=ask, turns=rng.choice((3, 4, 5))) if rng.random() < 0.75 else build_form(rng, held_out=held_out)
    conversation.skill = "cuts"
    _stop_thinking(conversation)
    for index, message in enumerate(conversation.messages):
        if message["role"] == "assistant":
            text = message["content"]
            inside = [i for i in range(1, len(text)) if text[i - 1].isalnum() and text[i].isalnum()]
            conversation.cuts[index] = rng.choice(inside) if inside else 0
    return conversation


def _stop_thinking(conversation: Conversation) -> None:
    conversation.thinking = False
    for message in conversation.messages:
        message.pop("reasoning", None)
