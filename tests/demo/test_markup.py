"""The training data has exactly the form that the server renders."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from api.chat.request import (
    AssistantMessage,
    ChatRequest,
    Content,
    Message,
    ResolvedImage,
    SystemMessage,
    TextPart,
    Thinking,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from demo.conversation import Conversation
from demo.conversations import BUILDERS
from demo.markup import Piece, write
from engine.core import Image

TOKENIZER_PATH = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe" / "tokenizer.json"
PICTURE = Image(rgb=bytes(48 * 96 * 3), width=96, height=48)


def _content(content: str | list[dict[str, object]]) -> Content:
    if isinstance(content, str):
        return content
    return tuple(TextPart(str(part["text"])) if part["type"] == "text" else ResolvedImage(PICTURE) for part in content)


def _messages(conversation: Conversation, count: int) -> tuple[Message, ...]:
    messages: list[Message] = []
    call_ids: list[str] = []
    for message in conversation.messages[:count]:
        match message["role"]:
            case "system":
                messages.append(SystemMessage(message["content"]))
            case "user":
                messages.append(UserMessage(_content(message["content"])))
            case "tool":
                messages.append(ToolMessage(message["content"], tool_call_id=call_ids.pop(0)))
            case _:
                calls = message.get("tool_calls", [])
                call_ids = [f"call_{index}" for index in range(len(calls))]
                messages.append(
                    AssistantMessage(
                        message["content"],
                        reasoning=message.get("reasoning"),
                        tool_calls=tuple(
                            ToolCall(call_id, call["name"], call["arguments"])
                            for call_id, call in zip(call_ids, calls, strict=True)
                        ),
                    )
                )
    return tuple(messages)


def _request(conversation: Conversation, count: int) -> ChatRequest:
    tools = tuple(
        ToolDefinition(function["name"], function["description"], function["parameters"])
        for function in (tool.declaration["function"] for tool in conversation.tools)
    )
    return ChatRequest("demo", _messages(conversation, count), tools=tools, thinking=Thinking(conversation.thinking))


def _piece_ids(piece: Piece, tokenizer: Tokenizer) -> list[int]:
    if piece.picture >= 0:
        names = ["<|image>", *["<|image|>"] * PICTURE.soft_tokens, "<image|>"]
        return [tokenizer.token_to_id(name) for name in names]
    if piece.special:
        return [tokenizer.token_to_id(piece.special)]
    ids: list[int] = tokenizer.encode(piece.text, add_special_tokens=False).ids
    return ids


def _given_ids(conversation: Conversation, tokenizer: Tokenizer) -> list[int]:
    """Return the ids in front of the last run of learnt pieces: the prompt of the last answer."""
    pieces = write(conversation)
    end = max(index for index, piece in enumerate(pieces) if piece.learnt)
    while pieces[end - 1].learnt:
        end -= 1
    return [token_id for piece in pieces[:end] for token_id in _piece_ids(piece, tokenizer)]


@pytest.mark.parametrize("skill", [skill for skill in BUILDERS if skill not in ("continue", "spell", "cuts")])
def test_training_prompts_are_what_the_server_renders(skill: str) -> None:
    """For every skill the ids in front of the last answer equal the rendered prompt of the same request."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER_PATH))
    gemma = Gemma4Tokenizer(Tokenizer.from_file(str(TOKENIZER_PATH)))
    rng = random.Random(11)
    for _ in range(60):
        conversation = BUILDERS[skill](rng)
        prompt = render(_request(conversation, len(conversation.messages) - 1), gemma)

        assert list(prompt.ids) == _given_ids(conversation, tokenizer), conversation.messages


@pytest.mark.parametrize("skill", ["continue", "spell"])
def test_continued_answers_are_rendered_as_trained(skill: str) -> None:
    """A final assistant message that is to be continued ends the prompt with exactly the given part."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER_PATH))
    gemma = Gemma4Tokenizer(Tokenizer.from_file(str(TOKENIZER_PATH)))
    rng = random.Random(12)
    for _ in range(60):
        conversation = BUILDERS[skill](rng)
        request = _request(conversation, len(conversation.messages) - 1)
        begun = AssistantMessage(
            conversation.messages[-1]["content"][: conversation.cuts[len(conversation.messages) - 1]]
        )
        request = ChatRequest(
            "demo", (*request.messages, begun), add_generation_prompt=False, continue_final_message=True
        )

        assert list(render(request, gemma).ids) == _given_ids(conversation, tokenizer)
