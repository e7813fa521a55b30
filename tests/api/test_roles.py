"""The order of messages that the NIM documents for Gemma 4, each rule with the request that breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import ScriptedServer
from tests.api.test_bad_input import check_error

SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "42"}
CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([USER], {}),
        ([SYSTEM, USER], {}),
        ([{**SYSTEM, "role": "developer"}, USER], {}),
        ([USER, ASSISTANT, USER], {}),
        ([SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER], {}),
        ([USER, CALLING, RESULT], {}),
        ([USER, CALLING, RESULT, ASSISTANT, USER], {}),
        ([USER, ASSISTANT], CONTINUE),
        ([SYSTEM, USER, ASSISTANT], CONTINUE),
    ],
)
def test_allowed_orders(server: ScriptedServer, messages: list[Any], fields: dict[str, Any]) -> None:
    """Conversations in the documented order are answered."""
    response = server.post({"messages": messages, **fields})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        ([ASSISTANT, USER], {}, "messages.0.role"),
        ([SYSTEM, ASSISTANT, USER], {}, "messages.1.role"),
        ([RESULT], {}, "messages.0.role"),
        ([SYSTEM], {}, "messages.0.role"),
        ([USER, USER], {}, "messages.1.role"),
        ([USER, ASSISTANT, ASSISTANT, USER], {}, "messages.2.role"),
        ([USER, SYSTEM, USER], {}, "messages.1.role"),
        ([USER, RESULT], {}, "messages.1.role"),
        ([USER, ASSISTANT, RESULT], {}, "messages.2.role"),
        ([USER, CALLING, USER], {}, "messages.2.role"),
        ([USER, ASSISTANT], {}, "messages.1.role"),
        ([USER, ASSISTANT], {"add_generation_prompt": False}, "messages.1.role"),
        ([USER, ASSISTANT], {"continue_final_message": True}, "continue_final_message"),
        ([USER], CONTINUE, "continue_final_message"),
    ],
)
def test_refused_orders(server: ScriptedServer, messages: list[Any], fields: dict[str, Any], param: str) -> None:
    """Any other order is a 400 that names the message or flag at fault."""
    check_error(server.post({"messages": messages, **fields}), 400, param)
    assert not server.core.requests
