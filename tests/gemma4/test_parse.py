"""Outputs: the vectors, the notation of calls, thoughts, stop texts and continued calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.chat.request import AssistantMessage, ChatRequest, ToolCall, UserMessage
from api.gemma4.answer import finish_name
from api.gemma4.events import CallDelta, CallStart, ContentDelta
from api.gemma4.prompt import PromptState
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import FinishReason
from tests.gemma4.conftest import vectors
from tests.gemma4.openai_form import tool_definition
from tests.gemma4.parsing import answer_to, calls_of, gather, parse, parser


@pytest.mark.parametrize("vector", vectors("parse"), ids=lambda v: v["id"])
def test_outputs_become_the_right_message(tokenizer: Gemma4Tokenizer, vector: dict[str, Any]) -> None:
    """Every vector becomes its content, reasoning and calls; where none are given, nothing is lost."""
    tools = [tool_definition(tool) for tool in vector["tools"]]
    answer = answer_to(tokenizer, vector["text"], PromptState(vector["prompt_state"]), tools=tools)
    content, reasoning, calls = vector["want"]
    assert (answer.content, answer.reasoning) == (content, reasoning)
    if calls is None:
        assert [call.name for call in answer.calls] == ["cfg"]
        assert vector["text"].count("[") <= answer.calls[0].arguments.count("[") + 1
    else:
        assert calls_of(answer) == calls


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{city:<|"|>say "hi" \\n<|"|>}', {"city": 'say "hi" \\n'}),
        ('{city:<|"|><a href="x">{1}</a><|"|>}', {"city": '<a href="x">{1}</a>'}),
        ('{city:<|"|>Rome}', {"city": "Rome"}),
        ('{city:<|"|>Rome', {"city": "Rome"}),
        ('{city:<|"|>Rome<|"|>', {"city": "Rome"}),
        ("{days:2,metric:false,ratio:5.0}", {"days": 2, "metric": False, "ratio": 5.0}),
        ("{days:007,ratio:.5}", {"days": 7, "ratio": 0.5}),
        ("{days:12345678901234567890123}", {"days": 12345678901234567890123}),
        ('{city:"Paris, \\"x\\"",days:3}', {"city": 'Paris, "x"', "days": 3}),
        ("{'city':'it\\'s','days':1}", {"city": "it's", "days": 1}),
        ("{city:null,metric:True,other:None}", {"city": None, "metric": True, "other": None}),
        ("{city:true,days:42}", {"city": "true", "days": 42}),
        ("{a b:1,x-y:2,größe:3}", {"a b": 1, "x-y": 2, "größe": 3}),
        ('{<|"|>a:b<|"|>:1}', {"a:b": 1}),
        ("{ city : Rome , days : 2 }", {"city": "Rome", "days": 2}),
        ("{a:{b:[1,{c:x}]},d:[]}", {"a": {"b": [1, {"c": "x"}]}, "d": []}),
        ("{a:[1,2}", {"a": [1, 2]}),
        ("{a:{b:1}", {"a": {"b": 1}}),
        ("{a:,b}", {"a": None, "b": None}),
        ("{a:1,,b:2,}", {"a": 1, "b": 2}),
        ("{{a:1}}", {"a": 1}),
        ("(city=Rome, days=2)", {"city": "Rome", "days": 2}),
        ('({"city": "Rome"})', {"city": "Rome"}),
        ('{code:f(){x}<|"|>,days:1}', {"code": "f(){x}", "days": 1}),
        ('{city:<|"|>a <|"|>b<|"|> c<|"|>}', {"city": 'a "b" c'}),
    ],
)
def test_arguments_are_understood(tokenizer: Gemma4Tokenizer, text: str, arguments: dict[str, Any]) -> None:
    """Strings are literal, bare values typed, and what the model leaves out is supplied."""
    answer = answer_to(tokenizer, f"<|tool_call>call:get_weather{text}<tool_call|>")
    assert calls_of(answer) == [["get_weather", arguments]]
    assert (answer.content, answer.calls[0].complete) == ("", True)


def test_numbers_keep_their_digits(tokenizer: Gemma4Tokenizer) -> None:
    """A number is passed on as it was written."""
    answer = answer_to(tokenizer, "<|tool_call>call:f{a:5.0,b:1.50e3,c:0.10000000000000000001}<tool_call|>")
    assert answer.calls[0].arguments == '{"a":5.0,"b":1.50e3,"c":0.10000000000000000001}'


@pytest.mark.parametrize(
    ("text", "content", "reasoning", "calls"),
    [
        ("<|channel>thought\nA<channel|>x<|channel>thought\nB<channel|>y", "xy", "AB", 0),
        ("<|channel>thought\nA\n<channel|>x<|channel>thought\nB\n<channel|>", "x", "A\nB", 0),
        ("<|channel>thought\nA<|tool_call>call:ping{}<tool_call|>", "", "A", 1),
        ("<|channel>thoughtful<channel|>x", "x", "thoughtful", 0),
        ("<|channel>other words<channel|>x", "x", "other words", 0),
        ("Say <|tool_call>nothing (that is fine<tool_call|>ok", "Say nothing (that is fineok", "", 0),
        ("<|tool_call>call:ping<tool_call|>", "", "", 1),
        ("a<|tool_call>call:ping{}<tool_call|> b <|tool_call>call:ping{}<tool_call|>\n", "a b", "", 2),
        ("<|tool_call>call:ping{}<|tool_call>call:ping{}", "", "", 2),
        ("<|tool_call>call:ping{} and text", "and text", "", 1),
        ('<|tool_call>call:f{a:<|"|>x}<tool_call|><|tool_call>call:g{}<tool_call|>', "", "", 2),
        ('<|tool_call>call:f{a:<|"|>x}<tool_call|>Done', "Done", "", 1),
        ("call:get_weather{city:Rome}<tool_call|>", "", "", 1),
        ("call:unknown{city:Rome}", "call:unknown{city:Rome}", "", 0),
        ("<turn|>\n<|turn>model\nHi", "\nHi", "", 0),
        ("a<|image|><pad>b", "ab", "", 0),
    ],
)  # fmt: skip
def test_sections_are_told_apart(
    tokenizer: Gemma4Tokenizer, text: str, content: str, reasoning: str, calls: int
) -> None:
    """Thoughts are joined without their labels, text round calls is kept, and markers never leak."""
    answer = answer_to(tokenizer, text)
    assert (answer.content, answer.reasoning, len(answer.calls)) == (content, reasoning, calls)
    assert all(call.complete for call in answer.calls)


def test_calls_are_text_where_they_are_barred(tokenizer: Gemma4Tokenizer) -> None:
    """With tool calls barred, what looks like one is content without its markers."""
    answer = answer_to(tokenizer, "<|tool_call>call:ping{}<tool_call|>", tool_calls=False)
    assert (answer.content, answer.calls) == ("call:ping{}", [])


def test_a_cut_call_is_not_complete(tokenizer: Gemma4Tokenizer) -> None:
    """A call that the limit cuts keeps what was written of it, unfinished; the engine's reason is the finish reason."""
    ids = tokenizer.encode_marked('<|tool_call>call:get_weather{days:2,city:<|"|>Rom')
    events = parse(parser(tokenizer), ids, cut=True)
    call = gather(events).calls[0]
    assert (call.arguments, call.complete) == ('{"days":2,"city":"Rom', False)
    assert finish_name(FinishReason.LENGTH, events) == "length"
    assert finish_name(FinishReason.STOP, events) == "stop"
    whole = parse(parser(tokenizer), tokenizer.encode_marked("<|tool_call>call:ping{}<tool_call|>"))
    assert finish_name(FinishReason.STOP, whole) == "tool_calls"


def test_arguments_grow_as_they_are_written(tokenizer: Gemma4Tokenizer) -> None:
    """A long string argument is streamed while it is written, not at its end."""
    reader = parser(tokenizer)
    reader.feed(tokenizer.encode_marked('<|tool_call>call:write{content:<|"|>'))
    for word in ("alpha", " beta", " gamma"):
        assert [e.arguments for e in reader.feed(tokenizer.encode(word)) if isinstance(e, CallDelta)] == [word]


@pytest.mark.parametrize("split", range(1, 30))
def test_a_continued_call_goes_on_in_the_client_s_json(tokenizer: Gemma4Tokenizer, split: int) -> None:
    """A call cut anywhere, handed back and finished, joins to the whole arguments under the same id."""
    document = {"city": 'New "York"', "days": -12, "o": {"k": [True, "é"]}}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    split = min(split * 2, len(text) - 1)
    split -= text[:split].endswith("\\")
    call = ToolCall("c9", "cfg", open_arguments=text[:split])
    message = AssistantMessage(None, tool_calls=(call,))
    request = ChatRequest("m", (UserMessage("x"), message), add_generation_prompt=False, continue_final_message=True)
    prompt = render(request, tokenizer)
    native = '<|tool_call>call:cfg{city:<|"|>New "York"<|"|>,days:-12,o:{k:[true,<|"|>é<|"|>]}}<tool_call|>'
    written = prompt.text.rpartition("<|tool_call>")[2]
    assert native.removeprefix("<|tool_call>").startswith(written)
    rest = native.removeprefix("<|tool_call>")[len(written) :]
    reader = parser(tokenizer, prompt.state, open_call=prompt.open_call)
    answer = gather(parse(reader, tokenizer.encode_marked(rest)))
    assert [(c.call_id, c.name, c.complete) for c in answer.calls] == [("c9", "cfg", True)]
    assert json.loads(text[:split] + answer.calls[0].arguments) == document


@pytest.mark.parametrize(
    ("text", "stop", "content", "stopped"),
    [
        ("one STOP two", ("STOP",), "one ", True),
        ("one STO two", ("STOP",), "one STO two", False),
        ("one STO", ("STOP",), "one STO", False),
        ("abcabd", ("abd", "x"), "abc", True),
        ("a\n\nb", ("\n\n",), "a", True),
        ('<|tool_call>call:f{a:<|"|>STOP<|"|>}<tool_call|>', ("STOP", "call"), "", False),
        ("<|channel>thought\nSTOP<channel|>ok", ("STOP",), "ok", False),
    ],
)
def test_stop_texts_end_the_answer(
    tokenizer: Gemma4Tokenizer,
    text: str,
    stop: tuple[str, ...],
    content: str,
    stopped: bool,
) -> None:
    """A stop text in the answer is never shown, not even its beginning, and is not looked for in thoughts and calls."""
    reader = parser(tokenizer, stop=stop)
    answer = gather(parse(reader, tokenizer.encode_marked(text)))
    assert (answer.content, reader.stopped) == (content, stopped)


def test_reasoning_tokens_are_counted(tokenizer: Gemma4Tokenizer) -> None:
    """The thought's ids and its markers count; the answer's do not."""
    thought = tokenizer.encode_marked("<|channel>thought\nLet me see.<channel|>")
    reader = parser(tokenizer)
    parse(reader, [*thought, *tokenizer.encode("Yes.")])
    assert reader.reasoning_tokens == len(thought)


def test_text_held_for_a_stop_text_stands_before_a_call(tokenizer: Gemma4Tokenizer) -> None:
    """What could have become a stop text is passed on before the call that follows it, in order."""
    ids = tokenizer.encode_marked("Let me see Par<|tool_call>call:ping{}<tool_call|>")
    events = parse(parser(tokenizer, stop=("Paris",)), ids)
    kinds = [type(event) for event in events]
    assert kinds.index(CallStart) == len(kinds) - 1 - kinds[::-1].index(ContentDelta) + 1
    assert gather(events).content == "Let me see Par"
