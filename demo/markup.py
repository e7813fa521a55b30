"""Conversations as pieces of Gemma 4's prompt format, each marked as given or as learnt.

This is the training side's own small writer of the format, independent of the server's renderer on purpose: a test
holds the two to the same token ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.conversation import Conversation, Message
from demo.tools import Tool

QUOTE = '<|"|>'


@dataclass(frozen=True)
class Piece:
    """Text, one special token by name, or a picture by index; ``learnt`` pieces are what the model has to write."""

    text: str = ""
    special: str = ""
    picture: int = -1
    learnt: bool = False


def write(conversation: Conversation) -> list[Piece]:
    """Write a conversation in the prompt format of the 26B-A4B and the 31B.

    With thinking off every model turn opens with the empty thought, earlier ones too: so that a follow-up request
    begins with the tokens of the one before it. With thinking on only turns after the last user message keep theirs.
    """
    writer = _Writer(conversation)
    writer.system_block()
    skipped = int(conversation.messages[0]["role"] == "system")
    messages = conversation.messages[skipped:]
    last_user = max(i for i, message in enumerate(messages) if message["role"] == "user")
    for index, message in enumerate(messages):
        if message["role"] == "user":
            writer.special("<|turn>")
            writer.text("user\n")
            writer.user_content(message["content"])
            writer.special("<turn|>")
            writer.text("\n")
        elif message["role"] == "tool":
            writer.tool_result(message)
        else:
            follows_result = messages[index - 1]["role"] == "tool"
            cut = conversation.cuts.get(index + skipped, 0)
            writer.assistant(message, follows_result=follows_result, current=index > last_user, cut=cut)
    return writer.pieces


class _Writer:
    def __init__(self, conversation: Conversation) -> None:
        self.pieces: list[Piece] = [Piece(special="<bos>")]
        self._conversation = conversation
        self._learn_any = not conversation.thinking

    def text(self, text: str, *, learnt: bool = False) -> None:
        if text:
            self.pieces.append(Piece(text=text, learnt=learnt))

    def special(self, name: str, *, learnt: bool = False) -> None:
        self.pieces.append(Piece(special=name, learnt=learnt))

    def system_block(self) -> None:
        conversation = self._conversation
        first = conversation.messages[0]
        system = first["content"] if first["role"] == "system" else ""
        if not (system or conversation.tools or conversation.thinking):
            return
        self.special("<|turn>")
        self.text("system\n")
        if conversation.thinking:
            self.special("<|think|>")
            self.text("\n")
        self.text(system)
        for tool in conversation.tools:
            self._declaration(tool)
        self.special("<turn|>")
        self.text("\n")

    def user_content(self, content: Any) -> None:
        if isinstance(content, str):
            self.text(content)
            return
        for part in content:
            if part["type"] == "picture":
                self.pieces.append(Piece(picture=part["index"]))
            else:
                self.text(part["text"])

    def assistant(self, message: Message, *, follows_result: bool, current: bool, cut: int) -> None:
        thinking = self._conversation.thinking
        learnt = current or not thinking
        if not follows_result:
            self.special("<|turn>")
            self.text("model\n")
            if not thinking:
                self._empty_thought()
        if thinking and current:
            # After a tool result the prompt itself opens the thought; otherwise the model decides to.
            self.special("<|channel>", learnt=not follows_result)
            self.text("thought\n", learnt=not follows_result)
            self.text(message["reasoning"] + "\n", learnt=True)
            self.special("<channel|>", learnt=True)
        if calls := message.get("tool_calls"):
            for call in calls:
                self.special("<|tool_call>", learnt=learnt)
                self._call(call, learnt=learnt)
                self.special("<tool_call|>", learnt=learnt)
            # The model writes the first marker of the results: that is where it stops to wait for them.
            self.special("<|tool_response>", learnt=learnt)
            return
        text = message["content"]
        self.text(text[:cut])
        self.text(text[cut:], learnt=learnt)
        self.special("<turn|>", learnt=learnt)
        self.text("\n")

    def tool_result(self, message: Message) -> None:
        if self.pieces[-1].special != "<|tool_response>":
            self.special("<|tool_response>")
        self.text(f"response:{message['name']}{{value:")
        self._string(message["content"])
        self.text("}")
        self.special("<tool_response|>")

    def _empty_thought(self) -> None:
        self.special("<|channel>")
        self.text("thought\n")
        self.special("<channel|>")

    def _string(self, text: str, *, learnt: bool = False) -> None:
        self.special(QUOTE, learnt=learnt)
        self.text(text, learnt=learnt)
        self.special(QUOTE, learnt=learnt)

    def _call(self, call: Message, *, learnt: bool) -> None:
        text = f"call:{call['name']}{{"
        for index, key in enumerate(sorted(call["arguments"], key=str.lower)):
            value = call["arguments"][key]
            text += f"{',' if index else ''}{key}:"
            if isinstance(value, str):
                self.text(text, learnt=learnt)
                self._string(value, learnt=learnt)
                text = ""
            else:
                text += str(value).lower() if isinstance(value, bool) else str(value)
        self.text(text + "}", learnt=learnt)

    def _declaration(self, tool: Tool) -> None:
        function = tool.declaration["function"]
        parameters = function["parameters"]
        self.special("<|tool>")
        self.text(f"declaration:{function['name']}{{description:")
        self._string(function["description"])
        text = ",parameters:{properties:{"
        for index, key in enumerate(sorted(parameters["properties"], key=str.lower)):
            schema = parameters["properties"][key]
            text += f"{',' if index else ''}{key}:{{"
            if description := schema.get("description"):
                self.text(text + "description:")
                self._string(description)
                text = ","
            if enum := schema.get("enum"):
                text += "enum:["
                for position, option in enumerate(enum):
                    self.text(text + ("," if position else ""))
                    self._string(option)
                    text = ""
                text += "],"
            self.text(text + "type:")
            self._string(schema["type"].upper())
            text = "}"
        text += "},required:["
        for position, key in enumerate(parameters["required"]):
            self.text(text + ("," if position else ""))
            self._string(key)
            text = ""
        self.text(text + "],type:")
        self._string("OBJECT")
        self.text("}}")
        self.special("<tool|>")
