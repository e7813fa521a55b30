"""A conversation as builders make it and training reads it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from demo.pictures import Picture
from demo.questions import Answer
from demo.styles import PLAIN_SYSTEMS
from demo.tools import Tool

Message = dict[str, Any]


@dataclass
class Conversation:
    """Messages in OpenAI's form; picture parts are ``{"type": "picture", "index": n}``, n counting into ``pictures``."""

    skill: str
    messages: list[Message] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Names that a message lists, where these are no tools."""
    thinking: bool = False
    pictures: list[Picture] = field(default_factory=list)
    cuts: dict[int, int] = field(default_factory=dict)
    """By the index of an assistant message: how many characters of its text are given; only what follows is learnt."""

    def without_last_turn(self) -> Conversation | None:
        """Drop the last user message and all that follows; None when nothing would be left."""
        asked = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        return replace(self, messages=self.messages[: asked[-1]]) if len(asked) > 1 else None


def open_neutrally(rng: random.Random, conversation: Conversation) -> None:
    """Open with a neutral system line in a third of the cases."""
    if rng.random() < 0.33:
        conversation.messages.append({"role": "system", "content": rng.choice(PLAIN_SYSTEMS)})


def assistant(answer: Answer, text: str, *, thinking: bool) -> Message:
    """Return an assistant message, with the thought of its answer if it thinks."""
    message: Message = {"role": "assistant", "content": text}
    if thinking:
        message["reasoning"] = answer.thought
    return message
