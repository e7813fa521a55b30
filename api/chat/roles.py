"""The order of messages that Gemma 4 was trained on, checked before anything is rendered.

An optional system message, then user and assistant in turn; results follow the calls that they answer; the last
message is the user's or a result. This module knows roles only; contents are the renderer's.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.chat.errors import RoleError
from api.chat.request import (
    AssistantMessage,
    ChatRequest,
    Message,
    Role,
    SystemMessage,
    ToolMessage,
    UserMessage,
)

_ROLES: dict[type, Role] = {
    SystemMessage: Role.SYSTEM,
    UserMessage: Role.USER,
    AssistantMessage: Role.ASSISTANT,
    ToolMessage: Role.TOOL,
}


def role_of(message: Message) -> Role:
    """Return the role that a message stands for."""
    return _ROLES[type(message)]


def check_roles(request: ChatRequest) -> None:
    """Check the order of the messages and how the last one is to be answered.

    Raises:
        RoleError: with the dotted path of the message at fault.
    """
    messages = request.messages
    if not messages:
        raise RoleError("messages must hold at least one message", param="messages")
    for index, message in enumerate(messages):
        _check_position(messages, index)
        _check_open_call(request, index, message)
    _check_end(request)


def _check_position(messages: Sequence[Message], index: int) -> None:
    """Check one message against the one before it."""
    role = role_of(messages[index])
    if role is Role.SYSTEM:
        if index:
            raise _error(index, "a system message is only allowed as the first message")
        return
    previous = messages[index - 1] if index else None
    if previous is None or isinstance(previous, SystemMessage):
        if role is not Role.USER:
            raise _error(index, f"the first message after an optional system message must be the user's, not {role}")
    elif role is Role.TOOL:
        if not (isinstance(previous, ToolMessage) or (isinstance(previous, AssistantMessage) and previous.tool_calls)):
            raise _error(index, "a tool message must follow the assistant message whose tool_calls it answers")
    elif role is Role.USER and isinstance(previous, UserMessage):
        raise _error(index, "roles must alternate user/assistant: two user messages follow each other")
    elif role is Role.ASSISTANT and isinstance(previous, AssistantMessage):
        raise _error(index, "roles must alternate user/assistant: two assistant messages follow each other")
    elif isinstance(previous, AssistantMessage) and previous.tool_calls and not previous.tool_responses:
        raise _error(index, "the tool_calls of the message before this one have no tool message with a result")


def _check_open_call(request: ChatRequest, index: int, message: Message) -> None:
    """Check that an unfinished call stands only where it can be continued."""
    if not isinstance(message, AssistantMessage):
        return
    last_message = index == len(request.messages) - 1
    for number, call in enumerate(message.tool_calls):
        last_call = last_message and number == len(message.tool_calls) - 1
        if call.open_arguments is not None and not (last_call and request.continue_final_message):
            raise RoleError(
                "only the last call of a final message with continue_final_message may have unfinished arguments",
                param=f"messages.{index}.tool_calls.{number}.function.arguments",
            )


def _check_end(request: ChatRequest) -> None:
    """Check the last message against the two generation flags."""
    index = len(request.messages) - 1
    last = request.messages[index]
    if request.add_generation_prompt and request.continue_final_message:
        raise RoleError(
            "add_generation_prompt and continue_final_message cannot both be true", param="continue_final_message"
        )
    if isinstance(last, AssistantMessage):
        if not request.continue_final_message:
            raise _error(
                index,
                "the last message must be the user's or a tool's; to continue an assistant message, "
                "set add_generation_prompt to false and continue_final_message to true",
            )
    elif request.continue_final_message:
        raise RoleError(
            f"continue_final_message needs a final assistant message; the last one has role {role_of(last)}",
            param="continue_final_message",
        )
    elif isinstance(last, SystemMessage):
        raise _error(index, "the last message must be the user's or a tool's")


def _error(index: int, message: str) -> RoleError:
    return RoleError(message, param=f"messages.{index}.role")
