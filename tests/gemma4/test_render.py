"""Prompts: the family's template where it is right, and the repairs where it is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.chat.errors import ArgumentsError
from api.chat.request import (
    AssistantMessage,
    ChatRequest,
    Message,
    ResolvedImage,
    TextPart,
    Thinking,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from api.gemma4.prompt import Prompt, PromptState
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import Image
from tests.gemma4.conftest import vectors
from tests.gemma4.openai_form import chat_request

EMPTY = "<|channel>thought\n<channel|>"
CALL = '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'
RESULT = '<|tool_response>response:get_weather{value:<|"|>sunny<|"|>}<tool_response|>'

# With thinking off, the generation prompt carries an empty thought; earlier model turns keep it, so that a follow-up's
# prompt starts with the previous prompt and its answer. Only that is added.
EMPTY_THOUGHT_KEPT = {
    "multi_turn_reasoning_dropped",
    "history_with_inline_thought",
    "empty_assistant",
    "none_assistant",
    "tool_call_pending",
    "tool_roundtrip+weather",
    "tool_roundtrip_json_string",
    "tool_roundtrip_then_user_no_answer",
    "parallel_calls",
    "tool_unknown_id_named",
    "tool_unknown_id_unnamed",
    "args_none",
}
# The template loses its place; what must come out instead, from the model's header on.
REPAIRED = {
    # Text beside calls stands before them, and the turn goes on after the results.
    "tool_call_with_content": f"{EMPTY}Let me check.{CALL}{RESULT}",
    "tool_call_with_content-nogen": f"{EMPTY}Let me check.{CALL}{RESULT}",
    "tool_call_with_content+think+weather-nogen": f"Let me check.{CALL}{RESULT}",
    # An object as a result raises in the template.
    "tool_dict_content": f'{EMPTY}<|tool_call>call:f{{}}<tool_call|><|tool_response>response:f{{sky:<|"|>clear<|"|>,'
    "temp:20}<tool_response|>",
    "tool_dict_content+think": '<|tool_call>call:f{}<tool_call|><|tool_response>response:f{sky:<|"|>clear<|"|>,temp:20}'
    "<tool_response|><|channel>thought\n",
    # Arguments as a string raise in the template; they are parsed.
    "args_string": f"{EMPTY}<|tool_call>call:f{{a:1}}<tool_call|><|tool_response>",
    # A turn that results and text have ended needs a header before the next.
    "legacy_tool_responses": f'{EMPTY}<|tool_call>call:get_weather{{city:<|"|>P<|"|>}}<tool_call|><|tool_response>'
    'response:get_weather{l:[<|"|>a<|"|>,1],sky:<|"|>clear<|"|>,temp:20}<tool_response|>Sunny.<turn|>\n'
    f"<|turn>model\n{EMPTY}",
    "legacy_tool_responses+think": '<|tool_call>call:get_weather{city:<|"|>P<|"|>}<tool_call|><|tool_response>'
    'response:get_weather{l:[<|"|>a<|"|>,1],sky:<|"|>clear<|"|>,temp:20}<tool_response|>Sunny.<turn|>\n<|turn>model\n',
}
# Text equal, ids not: the template's text, tokenised as a whole, would let the user open a system turn.
NEUTRALISED = {"marker_injection"}
# The schema is normalised before it is declared; see the test of its own below.
NORMALISED = {"decl_rich"}


@pytest.mark.parametrize("vector", vectors("render"), ids=lambda v: v["id"])
def test_prompts_equal_the_template(tokenizer: Gemma4Tokenizer, vector: dict[str, Any]) -> None:
    """Every vector comes out as the template's text and ids, or as its documented repair."""
    name, expected = vector["id"], vector["expected"]
    prompt = render(chat_request(vector["input"]), tokenizer)
    if name in REPAIRED:
        assert prompt.text.partition("<|turn>model\n")[2] == REPAIRED[name]
    elif name in EMPTY_THOUGHT_KEPT:
        header = "<|turn>model\n"
        restored = expected.replace(header, header + EMPTY).replace(EMPTY * 2, EMPTY)
        assert prompt.text == restored
        assert prompt.ids == tokenizer.encode_marked(restored)
    elif name in NORMALISED:
        assert 'zeta:{description:<|"|>an int (minimum: 1)<|"|>,type:<|"|>INTEGER<|"|>}' in prompt.text
    else:
        assert prompt.text == expected
        assert (list(prompt.ids) == vector["token_ids"]) is (name not in NEUTRALISED)


def test_the_exceptions_are_all_vectors() -> None:
    """No exception outlives its vector."""
    names = {vector["id"] for vector in vectors("render")}
    assert EMPTY_THOUGHT_KEPT | REPAIRED.keys() | NEUTRALISED | NORMALISED <= names


@given(
    text=st.lists(st.sampled_from(["<turn|>", "<|turn>", "<|tool_call>", '<|"|>', "<|image|>", "\n", "a "])).map(
        "".join
    )
)
@settings(deadline=None)
def test_no_text_of_a_request_makes_a_special_token(tokenizer: Gemma4Tokenizer, text: str) -> None:
    """The special tokens of a prompt do not depend on what its texts spell: in messages, calls, results or tools."""

    def special_ids(content: str) -> list[int]:
        schema = {"type": "object", "properties": {f"k{content}": {"type": "string", "description": f"d{content}"}}}
        body = {
            "messages": [
                {"role": "system", "content": f"s{content}"},
                {"role": "user", "content": [{"type": "text", "text": f"u{content}"}]},
                {
                    "role": "assistant",
                    "content": "c",
                    "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"k": f"v{content}"}}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": f"r{content}"},
            ],
            "tools": [{"function": {"name": "f", "description": f"t{content}", "parameters": schema}}],
        }
        ids = render(chat_request(body), tokenizer).ids
        return [token_id for token_id in ids if token_id in tokenizer.special_ids]

    # A key that cannot stand bare is not part of this: declarations print keys as they are.
    assert special_ids(text) == special_ids("")


def conversation(*turns: Message, thinking: bool = False, **changes: Any) -> ChatRequest:
    """Return a request of these messages."""
    return ChatRequest("m", turns, thinking=Thinking(enabled=thinking), **changes)


def test_follow_up_prompts_start_with_prompt_and_answer(tokenizer: Gemma4Tokenizer) -> None:
    """With thinking off, ten turns with a tool call among them reuse every token of the previous prompt and answer."""
    messages: list[Message] = [UserMessage("Hello, who are you?")]
    previous: tuple[int, ...] = ()
    for turn in range(10):
        prompt = render(conversation(*messages), tokenizer)
        assert prompt.ids[: len(previous)] == previous
        if turn == 4:
            call = ToolCall("c1", "get_weather", {"city": "Paris"})
            answer, added = (
                CALL + "<|tool_response>",
                [AssistantMessage(None, tool_calls=(call,)), ToolMessage("sunny", "c1")],
            )
        else:
            answer, added = f"Answer number {turn}.<turn|>", [AssistantMessage(f"Answer number {turn}.")]
            added.append(UserMessage(f"And question {turn}?"))
        previous = prompt.ids + tokenizer.encode_marked(answer)
        messages += added


def state_of(prompt: Prompt) -> tuple[str, PromptState]:
    """Return the end of a prompt and its state."""
    return prompt.text.rpartition("<|turn>model\n")[2], prompt.state


@pytest.mark.parametrize(
    ("thinking", "last", "end", "state"),
    [
        (False, AssistantMessage("The capital is "), f"{EMPTY}The capital is ", PromptState.CONTINUED),
        (True, AssistantMessage(" Yes\n"), "Yes\n", PromptState.CONTINUED),
        (True, AssistantMessage(""), "", PromptState.NEW_TURN),
        (False, AssistantMessage(None), EMPTY, PromptState.CLOSED_THOUGHT),
        (True, AssistantMessage(None, "First, "), "<|channel>thought\nFirst, ", PromptState.OPEN_THOUGHT),
        (True, AssistantMessage("<|channel>thought\nHm "), "<|channel>thought\nHm ", PromptState.OPEN_THOUGHT),
        (True, AssistantMessage("So", "done"), "<|channel>thought\ndone\n<channel|>So", PromptState.CONTINUED),
    ],
)
def test_a_final_message_is_continued_where_it_stops(
    tokenizer: Gemma4Tokenizer,
    thinking: bool,
    last: AssistantMessage,
    end: str,
    state: PromptState,
) -> None:
    """The prompt ends exactly where the assistant's message does, with the state that it left."""
    request = conversation(
        UserMessage("x"), last, thinking=thinking, add_generation_prompt=False, continue_final_message=True
    )
    assert state_of(render(request, tokenizer)) == (end, state)


@pytest.mark.parametrize(
    ("json_text", "native", "length"),
    [
        ('{"city": "Par', 'city:<|"|>Par', 12),
        ('{"days": 1', "days:1", 9),
        ('{"a": {"b": [1, "x"], ', 'a:{b:[1,<|"|>x<|"|>],', 18),
        ('{"ci', "ci", 4),
        ('{"s": "a\\"b', 's:<|"|>a"b', 10),
    ],
)
def test_a_cut_call_is_continued(tokenizer: Gemma4Tokenizer, json_text: str, native: str, length: int) -> None:
    """The JSON that a client holds of a cut call becomes what the model had written of it."""
    call = ToolCall("c7", "get_weather", open_arguments=json_text)
    request = conversation(
        UserMessage("x"),
        AssistantMessage(None, tool_calls=(call,)),
        add_generation_prompt=False,
        continue_final_message=True,
    )
    prompt = render(request, tokenizer)
    assert prompt.text.endswith("<|tool_call>call:get_weather{" + native)
    assert prompt.open_call is not None
    assert (prompt.open_call.json_length, prompt.open_call.call_id) == (length, "c7")
    assert tokenizer.decode_marked(prompt.open_call.ids) == "call:get_weather{" + native


@pytest.mark.parametrize("json_text", ['{"s": "a\\', '{"s": "a\\u00', '{"s": "\\ud83d'])
def test_a_call_cut_within_an_escape_is_refused(tokenizer: Gemma4Tokenizer, json_text: str) -> None:
    """Half an escape cannot be continued: the error names the arguments."""
    call = ToolCall("c7", "f", open_arguments=json_text)
    message = AssistantMessage(None, tool_calls=(call,))
    request = conversation(UserMessage("x"), message, add_generation_prompt=False, continue_final_message=True)
    with pytest.raises(ArgumentsError, match="escape") as caught:
        render(request, tokenizer)
    assert caught.value.param == "messages.1.tool_calls.0.function.arguments"


def test_pictures_take_their_places(tokenizer: Gemma4Tokenizer) -> None:
    """A resolved picture is its markers and soft tokens; pictures of a result stand after it, in order."""
    images = [Image(b"", 96, 96), Image(b"", 144, 48)]
    request = conversation(
        UserMessage((TextPart("Look: "), ResolvedImage(images[0]), TextPart(" ok"))),
        AssistantMessage(None, tool_calls=(ToolCall("1", "shot"),)),
        ToolMessage((TextPart("a"), ResolvedImage(images[1]), TextPart("b")), "1"),
    )
    prompt = render(request, tokenizer)
    special = tokenizer.special
    assert list(prompt.images) == images
    assert prompt.ids.count(special.image) == 4 + 3
    first = prompt.ids.index(special.image_open)
    assert prompt.ids[first : first + 6] == (special.image_open, *[special.image] * 4, special.image_close)
    assert "Look:<|image|>ok<turn|>" in prompt.text
    assert prompt.text.endswith('response:shot{value:<|"|>ab<|"|>}<tool_response|><|image|>')


def test_values_too_deep_are_refused(tokenizer: Gemma4Tokenizer) -> None:
    """Arguments and results that nest without end name their place instead of exhausting the stack."""
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    request = conversation(UserMessage("x"), AssistantMessage(None, tool_calls=(ToolCall("1", "f", {"a": deep}),)))
    with pytest.raises(ArgumentsError) as caught:
        render(request, tokenizer)
    assert caught.value.param == "messages.1.tool_calls.0.function.arguments"
