"""One grammar for a whole answer: an optional thought within its budget, then a call, or the answer in its format.

The grammar includes the token that ends the turn (end of turn or end of text after an answer, the place of a tool's
result after calls), so a matcher that stops has seen a finished answer. Where nothing needs enforcing there is no
grammar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api.chat.request import (
    ChatRequest,
    ChoiceFormat,
    GrammarFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    TextFormat,
    ToolDefinition,
    ToolMode,
)
from api.gemma4.errors import SchemaError
from api.gemma4.grammar import Embedded, Grammar, Literal, Node, Pattern, Repeat, Token, choice, optional, sequence
from api.gemma4.notation import JsonNotation, NativeNotation
from api.gemma4.prompt import PromptState
from api.gemma4.regex import full_regex
from api.gemma4.schema_grammar import SchemaCompiler
from api.gemma4.tokenizer import Gemma4Tokenizer

_MAX_CHARACTERS = 1_000_000
"""Engines take no longer grammars."""

_SOME_TEXT = Pattern(("(?s:.)+",))
_ANY_TEXT = Pattern(("(?s:.)*",))


@dataclass(frozen=True, slots=True)
class CallRules:
    """Which tools may be called, whether one must be, and whether more than one may."""

    tools: tuple[ToolDefinition, ...]
    required: bool
    parallel: bool

    @property
    def constrain(self) -> bool:
        """Whether calls must be held to something."""
        return bool(self.tools) and (self.required or not self.parallel or any(tool.strict for tool in self.tools))


def call_rules(request: ChatRequest) -> CallRules:
    """Return what a request says of calls.

    Raises:
        SchemaError: when a choice names a tool that is not declared, or asks for a call without tools.
    """
    wanted = request.tool_choice
    declared = {tool.name for tool in request.tools}
    for name in wanted.names or ():
        if name not in declared:
            raise SchemaError(f"`tool_choice` names {name[:200]!r}, which is not among the tools", param="tool_choice")
    if wanted.mode is ToolMode.REQUIRED and not request.tools:
        raise SchemaError("`tool_choice` asks for a call, but there are no tools", param="tool_choice")
    tools = tuple(t for t in request.tools if wanted.names is None or t.name in wanted.names)
    if wanted.mode is ToolMode.NONE:
        tools = ()
    return CallRules(tools, wanted.mode is ToolMode.REQUIRED, request.parallel_tool_calls)


def answer_grammar(
    request: ChatRequest, state: PromptState, tokenizer: Gemma4Tokenizer, *, budget: int | None
) -> str | None:
    """Return the grammar of the answer in Lark, or None when it is free. ``budget`` bounds the thought's tokens.

    Raises:
        SchemaError: naming the field and keyword that cannot be honoured.
    """
    return _AnswerGrammar(request, state, tokenizer, budget).build()


class _AnswerGrammar:
    def __init__(
        self, request: ChatRequest, state: PromptState, tokenizer: Gemma4Tokenizer, budget: int | None
    ) -> None:
        self._request = request
        self._state = state
        self._tokenizer = tokenizer
        self._special = tokenizer.special
        self._budget = budget
        self._calls = call_rules(request)
        self._grammar = Grammar()
        self._end = Token.of(self._special.turn_close, self._special.eos)
        self._end_calls = Token.of(self._special.response_open, self._special.turn_close, self._special.eos)

    def build(self) -> str | None:
        """Join the parts, if any of them constrains."""
        free = isinstance(self._request.response_format, TextFormat)
        restricted = self._calls.constrain or self._limits_names()
        may_think = self._state is PromptState.OPEN_THOUGHT or (
            self._state is PromptState.NEW_TURN and self._request.thinking.enabled
        )
        bounded = may_think and self._budget is not None
        sampling = self._request.sampling
        if sampling.bad_words or sampling.allowed_token_ids is not None:
            return self._without_structure(plain=free and not restricted and not bounded, may_think=may_think)
        if free and not restricted and not bounded:
            return None
        body = self._free_body() if free and not restricted else self._body(free=free)
        text = self._grammar.to_lark(sequence(self._thought(), body) if may_think else body)
        self._refuse_markers()
        return text

    def _refuse_markers(self) -> None:
        """Refuse literals that spell a special token.

        Where a text is forced, llguidance 1.9 offers the token that its spelling stands for, and then does not take it.
        """
        names = {name for name in map(self._tokenizer.name, self._tokenizer.special_ids) if name}
        # Vocabularies have thousands of special tokens, but of few lengths, and few characters begin one.
        lengths = {len(name) for name in names}
        begins = re.compile(f"[{re.escape(''.join({name[0] for name in names}))}]")
        for text in self._grammar.literals:
            marks = (match.start() for match in begins.finditer(text))
            spelled = (text[start : start + length] for start in marks for length in lengths)
            if name := next((name for name in spelled if name in names), None):
                raise SchemaError(f"the text {name} within an enum, const, key or choice cannot be enforced")

    def _limits_names(self) -> bool:
        """Tell whether some declared tools must not be called."""
        return bool(self._calls.tools) and len(self._calls.tools) < len(self._request.tools)

    def _thought(self) -> Node:
        """Return the thought: optional where the prompt has not opened it."""
        close = Token.of(self._special.channel_close)
        if self._budget is None:
            text: Node = _ANY_TEXT
        else:
            text = Repeat(Token(self._ranges(self._tokenizer.special_ids)), 0, self._budget)
        if self._state is PromptState.OPEN_THOUGHT:
            return sequence(text, close)
        return optional(sequence(Token.of(self._special.channel_open), Literal("thought\n"), text, close))

    def _free_body(self) -> Node:
        """Return anything up to the end of the turn, but no second thought, which would escape the budget."""
        stops = set(self._special.stop_ids)
        barred = stops | {self._special.channel_open, self._special.channel_close}
        if self._request.tool_choice.mode is ToolMode.NONE:
            barred.add(self._special.call_open)
        return sequence(Repeat(Token(self._ranges(frozenset(barred)))), Token.of(*sorted(stops)))

    def _without_structure(self, *, plain: bool, may_think: bool) -> str:
        """Return the grammar of a free answer from which words are barred, or that is of certain tokens only."""
        words, allowed = self._request.sampling.bad_words, self._request.sampling.allowed_token_ids
        name = "bad_words" if words else "allowed_token_ids"
        if not plain or (words and allowed is not None):
            raise SchemaError(f"`{name}` cannot be combined with anything else that constrains the answer", param=name)
        if allowed is not None:
            return self._grammar.to_lark(self._of_tokens(allowed))
        text = Pattern(("(?s:.)+",), absent=words)
        stops = frozenset(self._special.stop_ids)
        # What is inside calls is data, which the tools' schemas are for.
        calls: Node = sequence(Token.of(self._special.call_open), Repeat(Token(self._ranges(stops))))
        body = sequence(optional(text), optional(calls), Token.of(*sorted(stops)))
        if not may_think:
            return self._grammar.to_lark(body)
        close = Token.of(self._special.channel_close)
        if self._state is PromptState.OPEN_THOUGHT:
            thought: Node = sequence(optional(text), close)
        else:
            thought = optional(sequence(Token.of(self._special.channel_open), optional(text), close))
        return self._grammar.to_lark(sequence(thought, body))

    def _of_tokens(self, allowed: Sequence[int]) -> Node:
        """Return any number of certain tokens, and the end if it is among them."""
        for token_id in allowed:
            if token_id >= self._tokenizer.size:
                raise SchemaError(f"{token_id} is not a token of this model", param="allowed_token_ids")
        wanted = frozenset(allowed)
        ends = wanted & frozenset(self._special.stop_ids)
        others = wanted - ends
        parts = [Repeat(Token(_spans(sorted(others))))] if others else []
        return sequence(*parts, *([optional(Token(_spans(sorted(ends))))] if ends else []))

    def _body(self, *, free: bool) -> Node:
        """Return an answer or calls."""
        if self._calls.required:
            return sequence(self._call_sequence(), self._end_calls)
        answer = self._answer()
        if not self._calls.tools:
            return sequence(answer, self._end)
        calls = sequence(self._call_sequence(), self._end_calls)
        if free:
            return sequence(answer, choice((calls, self._end)))
        return choice((sequence(answer, self._end), calls))

    def _call_sequence(self) -> Node:
        call = self._grammar.add(choice([self._call(tool) for tool in self._calls.tools]))
        return Repeat(call, 1, None if self._calls.parallel else 1)

    def _call(self, tool: ToolDefinition) -> Node:
        """Return a call of one tool. Without strict, what its schema asks beyond the enforceable part is left open."""
        index = next(i for i, t in enumerate(self._request.tools) if t is tool)
        notation = NativeNotation(self._special.quote)
        compiler = SchemaCompiler(
            self._grammar, notation, tool.parameters, strict=tool.strict, param=f"tools.{index}.function.parameters"
        )
        head, tail = Token.of(self._special.call_open), Token.of(self._special.call_close)
        try:
            schema = {**(tool.parameters or {}), "type": "object"}
            schema.setdefault("properties", {})
            arguments = compiler.compile(schema)
        except SchemaError:
            if tool.strict:
                raise
            arguments = compiler.any_object()
        return sequence(head, Literal(f"call:{tool.name}"), arguments, tail)

    def _answer(self) -> Node:
        """Return the answer in the format that was asked for."""
        wanted = self._request.response_format
        if isinstance(wanted, JsonSchemaFormat):
            compiler = SchemaCompiler(
                self._grammar, JsonNotation(), wanted.schema, strict=wanted.strict, param=wanted.param
            )
            return compiler.compile(wanted.schema)
        if isinstance(wanted, JsonObjectFormat):
            compiler = SchemaCompiler(self._grammar, JsonNotation(), {}, strict=False, param="response_format")
            return compiler.any_object()
        if isinstance(wanted, RegexFormat):
            return Pattern((full_regex(wanted.pattern, param=wanted.param, keyword="regex"),))
        if isinstance(wanted, ChoiceFormat):
            return self._one_of(wanted.choices, wanted.param)
        if isinstance(wanted, GrammarFormat):
            return self._embedded(wanted)
        return optional(_SOME_TEXT)

    def _one_of(self, choices: Sequence[str], param: str) -> Node:
        if not choices or not all(choices):
            raise SchemaError("`choice` needs at least one text, and none of them empty", param=param)
        if sum(map(len, choices)) > _MAX_CHARACTERS:
            raise SchemaError(f"`choice` has more than {_MAX_CHARACTERS} characters", param=param)
        return choice([Literal(text) for text in choices])

    def _embedded(self, wanted: GrammarFormat) -> Node:
        if "start" not in wanted.grammar or "::=" in wanted.grammar:
            raise SchemaError("`grammar` must be Lark with a rule named start", param=wanted.param)
        return Embedded(wanted.grammar)

    def _ranges(self, barred: frozenset[int]) -> tuple[tuple[int, int], ...]:
        """Return the ids of the vocabulary without some, as inclusive ranges."""
        ranges: list[tuple[int, int]] = []
        start = 0
        for token_id in [*sorted(barred), self._tokenizer.size]:
            if token_id > start:
                ranges.append((start, token_id - 1))
            start = token_id + 1
        return tuple(ranges)


def _spans(ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return ascending ids as inclusive ranges."""
    spans: list[tuple[int, int]] = []
    for token_id in ids:
        if spans and spans[-1][1] == token_id - 1:
            spans[-1] = (spans[-1][0], token_id)
        else:
            spans.append((token_id, token_id))
    return tuple(spans)
