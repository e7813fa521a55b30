"""Plans: the model's defaults, the caller's limits, and what cannot be asked together."""

from __future__ import annotations

from typing import Any

import pytest

from api.chat.errors import ChatError
from api.chat.request import (
    ChatRequest,
    JsonObjectFormat,
    OutputLimits,
    SamplingOptions,
    Thinking,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    UserMessage,
)
from api.gemma4.plan import FORBIDDEN, GenerationPlan, make_plan
from api.gemma4.render import render
from api.gemma4.stop import StopTexts
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import Sampling


def plan(tokenizer: Gemma4Tokenizer, context_tokens: int = 1000, **fields: Any) -> GenerationPlan:
    """Return the plan of a request."""
    fields.setdefault("messages", (UserMessage("Hello there"),))
    request = ChatRequest("m", **fields)
    return make_plan(request, render(request, tokenizer), tokenizer, context_tokens=context_tokens)


def test_the_model_s_defaults_stand_in(tokenizer: Gemma4Tokenizer) -> None:
    """Without options the checkpoint's own sampling, every stop id and the whole context are used."""
    made = plan(tokenizer, 100)
    assert made.sampling == Sampling(temperature=1.0, top_k=64, top_p=0.95)
    assert set(made.stop_ids) == {1, 106, 50}
    assert made.grammar is None
    prompt = render(ChatRequest("m", (UserMessage("Hello there"),)), tokenizer)
    assert made.max_tokens == 100 - len(prompt.ids)


def test_options_are_passed_on(tokenizer: Gemma4Tokenizer) -> None:
    """What the caller says replaces the default, a neutral zero too; choices of one request differ by their seeds."""
    options = SamplingOptions(temperature=0.0, top_k=0, min_p=0.1, seed=7, presence_penalty=0.5, logit_bias={5: -1.0})
    made = plan(tokenizer, sampling=options, limits=OutputLimits(20, 3, ("END",), (9,), ignore_eos=True), logprobs=2)
    assert made.sampling == Sampling(0.0, 0, 0.95, 0.1, 1.0, 0.5, 0.0, 7, {5: -1.0})
    assert (made.max_tokens, made.min_tokens, made.stop, made.extra_stop_ids) == (20, 3, StopTexts(("END",)), (9,))
    assert made.ignore_stop_ids
    prompt = render(ChatRequest("m", (UserMessage("x"),)), tokenizer)
    first, second = (made.engine_request(prompt, "id", index) for index in (0, 1))
    assert (first.sampling.seed, second.sampling.seed) == (7, 8)
    assert 9 in first.stop_ids
    assert first.prompt_ids == prompt.ids


@pytest.mark.parametrize(
    ("option", "value", "sent"),
    [("top_k", 10**18, None), ("temperature", 1e-45, 0.0), ("temperature", 0.01, 0.01), ("top_p", 1e-300, 1e-6)],
)
def test_values_that_engines_cannot_hold(
    tokenizer: Gemma4Tokenizer, option: str, value: float, sent: float | None
) -> None:
    """What is beyond 32 bits, or would divide by nothing, is told as a value that means the same."""
    options: dict[str, Any] = {option: value}
    made = plan(tokenizer, sampling=SamplingOptions(**options))
    assert getattr(made.sampling, option) == (tokenizer.size if sent is None else sent)


@pytest.mark.parametrize(
    ("context_tokens", "max_tokens", "param"), [(10, None, "messages"), (40, 39, "max_tokens"), (14, 1, "messages")]
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    tokenizer: Gemma4Tokenizer, context_tokens: int, max_tokens: int | None, param: str
) -> None:
    """A prompt that is too long, or a limit that does not fit beside it, names the field and both sizes."""
    with pytest.raises(ChatError, match=rf"\d+ tokens.*{context_tokens}") as caught:
        plan(tokenizer, context_tokens, limits=OutputLimits(max_tokens))
    assert (caught.value.param, caught.value.code) == (param, "context_length_exceeded")


def test_barred_calls_are_never_drawn(tokenizer: Gemma4Tokenizer) -> None:
    """Without a tool choice the call token is barred, also beside the caller's own bias, and calls are text."""
    made = plan(
        tokenizer,
        tools=(ToolDefinition("f"),),
        tool_choice=ToolChoice(ToolMode.NONE),
        sampling=SamplingOptions(logit_bias={3: 1.0}),
    )
    assert made.sampling.logit_bias == {3: 1.0, tokenizer.special.call_open: FORBIDDEN}
    assert not made.tool_calls
    assert made.grammar is None


def test_a_budget_needs_a_grammar_only_when_it_can_be_reached(tokenizer: Gemma4Tokenizer) -> None:
    """A thinking budget of at least the answer's own limit constrains nothing."""
    thinking = Thinking(enabled=True, budget=50)
    assert plan(tokenizer, thinking=thinking, limits=OutputLimits(50)).grammar is None
    assert plan(tokenizer, thinking=thinking, limits=OutputLimits(51)).grammar is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"limits": OutputLimits(stop_token_ids=(10**9,))}, "stop_token_ids"),
        ({"sampling": SamplingOptions(logit_bias={-1: 1.0})}, "logit_bias"),
        ({"limits": OutputLimits(ignore_eos=True), "response_format": JsonObjectFormat()}, "ignore_eos"),
        ({"sampling": SamplingOptions(allowed_token_ids=(5, 10**9))}, "allowed_token_ids"),
        ({"sampling": SamplingOptions(bad_words=("x",)), "response_format": JsonObjectFormat()}, "bad_words"),
        (
            {"sampling": SamplingOptions(allowed_token_ids=(5,)), "response_format": JsonObjectFormat()},
            "allowed_token_ids",
        ),
        ({"sampling": SamplingOptions(bad_words=("x",), allowed_token_ids=(5,))}, "bad_words"),
    ],
)
def test_what_cannot_be_asked_together_is_named(tokenizer: Gemma4Tokenizer, fields: dict[str, Any], param: str) -> None:
    """Ids outside the vocabulary and contradicting fields are errors with the field's name."""
    with pytest.raises(ChatError) as caught:
        plan(tokenizer, **fields)
    assert caught.value.param == param


def test_included_stops_are_shown(tokenizer: Gemma4Tokenizer) -> None:
    """Stop texts are to be shown by the parser then, and no stop id of the caller is left out of the text."""
    made = plan(tokenizer, limits=OutputLimits(20, 0, ("END",), (9,), include_stop=True))
    assert (made.stop, made.extra_stop_ids) == (StopTexts(("END",), shown=True), ())
    assert 9 in made.stop_ids


def test_only_allowed_ids_end_the_answer(tokenizer: Gemma4Tokenizer) -> None:
    """Where certain ids alone may be drawn, an end that is not among them is never drawn."""
    turn_close = tokenizer.special.turn_close
    for allowed, ends in (((5, 7), (7,)), ((5, turn_close), (turn_close,)), ((5,), ())):
        made = plan(
            tokenizer, sampling=SamplingOptions(allowed_token_ids=allowed), limits=OutputLimits(9, stop_token_ids=(7,))
        )
        assert made.stop_ids == ends
