"""The order of messages that the model was trained on, and arguments as clients send them."""

from __future__ import annotations

from typing import Any

import pytest

from api.chat.arguments import parse_arguments
from api.chat.errors import ArgumentsError, RoleError
from api.chat.request import AssistantMessage, ChatRequest, Message, SystemMessage, ToolCall, ToolMessage, UserMessage
from api.chat.roles import check_roles

S, U, A, T = SystemMessage("s"), UserMessage("u"), AssistantMessage("a"), ToolMessage("t", "1")
C = AssistantMessage(None, tool_calls=(ToolCall("1", "f"),))
O = AssistantMessage(None, tool_calls=(ToolCall("1", "f", open_arguments='{"a'),))  # noqa: E741 - the open call
CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


@pytest.mark.parametrize(
    ("messages", "flags"),
    [
        ((U,), {}),
        ((S, U), {}),
        ((U, A, U), {}),
        ((S, U, C, T), {}),
        ((U, C, T, T, A, U), {}),
        ((U, C, T, C, T), {}),
        ((U, C, T, U), {}),
        ((U,), {"add_generation_prompt": False}),
        ((U, A), CONTINUE),
        ((U, C, T, A), CONTINUE),
        ((U, O), CONTINUE),
    ],
)
def test_trained_orders_are_accepted(messages: tuple[Message, ...], flags: dict[str, bool]) -> None:
    """User and assistant in turn, results after their calls, the user or a result last."""
    check_roles(ChatRequest("m", messages, **flags))


@pytest.mark.parametrize(
    ("messages", "flags", "param"),
    [
        ((), {}, "messages"),
        ((A, U), {}, "messages.0.role"),
        ((S, A), {}, "messages.1.role"),
        ((S,), {}, "messages.0.role"),
        ((U, S, U), {}, "messages.1.role"),
        ((S, S, U), {}, "messages.1.role"),
        ((U, U), {}, "messages.1.role"),
        ((U, A, A, U), {}, "messages.2.role"),
        ((U, T), {}, "messages.1.role"),
        ((T,), {}, "messages.0.role"),
        ((U, A, T), {}, "messages.2.role"),
        ((U, C, U), {}, "messages.2.role"),
        ((U, A), {}, "messages.1.role"),
        ((U, A), {"add_generation_prompt": False}, "messages.1.role"),
        ((U, A), {"continue_final_message": True}, "continue_final_message"),
        ((U,), CONTINUE, "continue_final_message"),
        ((U, O, T), {}, "messages.1.tool_calls.0.function.arguments"),
    ],
)
def test_other_orders_are_refused(messages: tuple[Message, ...], flags: dict[str, bool], param: str) -> None:
    """Any other order is an error with the path of the message at fault."""
    with pytest.raises(RoleError) as caught:
        check_roles(ChatRequest("m", messages, **flags))
    assert caught.value.param == param


@pytest.mark.parametrize(("text", "value"), [(None, {}), ("", {}), ("{}", {}), ('{"a": [1, "x"]}', {"a": [1, "x"]})])
def test_arguments_are_decoded(text: str | None, value: dict[str, Any]) -> None:
    """JSON text becomes an object; none is the empty one."""
    assert parse_arguments(text, param="p") == value


@pytest.mark.parametrize(
    "text", ["[1]", "{", "x", '{"a": NaN}', '{"a": 1e999}', '{"a":' * 200 + "1" + "}" * 200, "[" * 10**5]
)
def test_other_arguments_are_refused(text: str) -> None:
    """What is no JSON object, cannot be written as JSON, or nests without end, names the field."""
    with pytest.raises(ArgumentsError) as caught:
        parse_arguments(text, param="p")
    assert caught.value.param == "p"
