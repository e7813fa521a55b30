"""Requests in OpenAI's form, as the vectors hold them, to canonical requests."""

from __future__ import annotations

from typing import Any

from api.chat.arguments import parse_arguments
from api.chat.request import (
    AssistantMessage,
    ChatRequest,
    ContentPart,
    ImagePart,
    ImageSource,
    MediaKind,
    MediaPart,
    Message,
    SystemMessage,
    TextPart,
    Thinking,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    ToolResponse,
    UserMessage,
)


def chat_request(body: dict[str, Any], **changes: Any) -> ChatRequest:
    """Build a canonical request from a body in OpenAI's form."""
    fields: dict[str, Any] = {
        "model": "m",
        "messages": tuple(_message(message) for message in body["messages"]),
        "tools": tuple(tool_definition(tool) for tool in body.get("tools") or ()),
        "thinking": Thinking(enabled=body.get("enable_thinking", False), preserve=body.get("preserve_thinking", False)),
        "add_generation_prompt": body.get("add_generation_prompt", True),
        "continue_final_message": body.get("continue_final_message", False),
    }
    return ChatRequest(**{**fields, **changes})


def tool_definition(tool: dict[str, Any]) -> ToolDefinition:
    """Build a canonical tool definition."""
    function = tool["function"]
    return ToolDefinition(
        name=function["name"],
        description=function.get("description"),
        parameters=function.get("parameters"),
        response=function.get("response"),
        strict=bool(function.get("strict")),
    )


def _message(body: dict[str, Any]) -> Message:
    content = body.get("content")
    if isinstance(content, list):
        content = tuple(_part(part) for part in content)
    role = body["role"]
    if role in {"system", "developer"}:
        return SystemMessage(content)
    if role == "user":
        return UserMessage(content)
    if role == "tool":
        return ToolMessage(content, body.get("tool_call_id"), body.get("name"))
    return AssistantMessage(
        content,
        body.get("reasoning") or body.get("reasoning_content"),
        tuple(_call(call) for call in body.get("tool_calls") or ()),
        tuple(ToolResponse(item["name"], item["response"]) for item in body.get("tool_responses") or ()),
    )


def _call(body: dict[str, Any]) -> ToolCall:
    arguments = body["function"]["arguments"]
    if not isinstance(arguments, dict):
        arguments = parse_arguments(arguments, param="arguments")
    return ToolCall(body["id"], body["function"]["name"], arguments)


def _part(part: dict[str, Any]) -> ContentPart:
    kind = part["type"]
    if kind == "text":
        return TextPart(part["text"])
    if kind in {"image", "image_url"}:
        return ImagePart(ImageSource("data:,"))
    return MediaPart(MediaKind.AUDIO if "audio" in kind else MediaKind.VIDEO)
