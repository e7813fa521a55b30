"""One turn: sends the conversation and shows the answer while it comes.

Ctrl-C stops the answer, not the chat; what had come by then stays part of the conversation.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from launcher.commands.chat.conversation import Conversation
from launcher.commands.chat.screen import Screen
from launcher.commands.server_client import Server, ServerError

ROUTE: Final = "/v1/chat/completions"


@dataclass(slots=True)
class AnswerOptions:
    """How answers are asked for; None leaves a value to the server.

    Attributes:
        thinks: ask for a thought before the answer.
        thought_tokens: bound of the thought.
    """

    model: str
    thinks: bool = False
    thought_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a request for a streamed answer."""
        optional = {
            "max_completion_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            # Servers that know no thinking are not bothered with it unless it is asked for.
            "chat_template_kwargs": {"enable_thinking": True} if self.thinks else None,
            "thinking_token_budget": self.thought_tokens if self.thinks else None,
        }
        known = {"model": self.model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        return known | {name: value for name, value in optional.items() if value is not None}


@dataclass(slots=True)
class _Progress:
    started: float
    first: float | None = None
    text: str = ""
    finish_reason: str | None = None
    tokens: int | None = None


class Turn:
    """Asks one server, shows on one screen."""

    def __init__(self, server: Server, options: AnswerOptions, screen: Screen) -> None:
        self._server = server
        self._options = options
        self._screen = screen

    def run(self, conversation: Conversation) -> None:
        """Have the last user message answered, and keep the answer.

        Raises:
            ServerError: there was no answer, or none to its end; the conversation is as it was before the question.
        """
        progress = _Progress(time.monotonic())
        try:
            self._show(conversation, progress)
        except KeyboardInterrupt:
            self._screen.note("stopped")
        except ServerError:
            self._screen.finish()
            conversation.take_back()
            raise
        else:
            self._screen.finish()
            self._sum_up(progress)
        if progress.text:
            conversation.answer(progress.text)
        else:
            conversation.take_back()

    def _show(self, conversation: Conversation, progress: _Progress) -> None:
        self._screen.wait("")
        body = self._options.body(conversation.messages())
        with closing(self._server.stream(ROUTE, body)) as events:
            for event in events:
                usage = event.get("usage")
                if isinstance(usage, dict):
                    progress.tokens = usage.get("completion_tokens")
                for choice in event.get("choices") or ():
                    self._take(choice, progress)

    def _take(self, choice: dict[str, Any], progress: _Progress) -> None:
        delta = choice.get("delta") or {}
        thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
        text = delta.get("content") or ""
        if progress.first is None and (thought or text):
            progress.first = time.monotonic()
        # Kept first: an interrupt while it is shown must not lose it.
        progress.text += text
        self._screen.thought(thought)
        self._screen.answer(text)
        progress.finish_reason = choice.get("finish_reason") or progress.finish_reason

    def _sum_up(self, progress: _Progress) -> None:
        if progress.finish_reason == "length":
            self._screen.note("cut off: the limit of tokens is reached")
        elif not progress.text:
            self._screen.note("the answer is empty")
        if not self._screen.is_terminal or progress.first is None or not progress.tokens:
            return
        now = time.monotonic()
        words = [f"{progress.tokens} tokens", f"first after {progress.first - progress.started:.2f} s"]
        if progress.tokens > 1 and now > progress.first:
            words.append(f"then {(progress.tokens - 1) / (now - progress.first):.0f} per second")
        self._screen.note(", ".join(words))
