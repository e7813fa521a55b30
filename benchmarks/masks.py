"""``python -m benchmarks.masks``: what constrained answers cost at the real vocabulary of 262,144 tokens.

Making and compiling grammars, and masking along a valid answer, with the product's own code; writing masks over logits
against the plain way of writing them; and what it would cost to let the keys of small objects come in any order, which
the product does not. All times are CPU times.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from api.gemma4 import schema_grammar
from api.gemma4.grammar import EMPTY, Grammar, Node, choice, optional, sequence
from api.gemma4.native import native_text
from api.gemma4.plan import make_plan
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from benchmarks.conversations import tools
from benchmarks.rendering import CALL, TOKENIZER, chat_request, medians, milliseconds
from engine.grammar import GrammarCompiler
from engine.logit_mask import MaskWriter

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "kind": {"enum": ["person", "place", "thing"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 1000},
        "ratio": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        "where": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    "required": ["name", "kind", "where"],
    "additionalProperties": False,
}
DOCUMENT: Final = {"name": "Ada", "kind": "person", "count": 12, "tags": ["a", "b"], "where": {"city": "London"}}
SHARES: Final = (0.00001, 0.001, 0.1, 0.5, 0.9, 0.999, 1.0)
"""Shares of ids that a mask allows, from structure to free text."""
PROPERTIES: Final[dict[str, dict[str, Any]]] = {
    "city": {"type": "string"},
    "count": {"type": "integer"},
    "kind": {"enum": ["a", "b", "c"]},
    "note": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}},
}
VALUES: Final[dict[str, Any]] = {"city": "x y", "count": 3, "kind": "b", "note": True, "tags": ["q", "r"]}


def plain_write(row: NDArray[np.float32], mask: NDArray[np.uint8]) -> bool:
    """Write a mask as one would at first: every id by itself."""
    allowed = np.unpackbits(mask, count=len(row), bitorder="little").view(np.bool_)
    np.putmask(row, ~allowed, -np.inf)
    return bool(np.isfinite(row.max()))


def write_table(vocab_size: int, rounds: int) -> Table:
    """Time writing random masks, ours and plainly; check that both write the same."""
    random = np.random.default_rng(1)
    logits = random.standard_normal(vocab_size).astype(np.float32)
    row = logits.copy()
    writer = MaskWriter(vocab_size)
    table = Table(title="Writing a mask over logits", title_justify="left")
    for heading in ("ids allowed", "plainly, CPU µs", "ours, CPU µs", "times as fast"):
        table.add_column(heading, justify="right")
    for share in SHARES:
        mask = np.packbits(random.random(vocab_size) < share, bitorder="little")
        expected, made = logits.copy(), logits.copy()
        if plain_write(expected, mask) != writer.write(made, mask) or not np.array_equal(expected, made):
            message = f"masks that allow {share:.3%} of the ids are not written the same"
            raise ValueError(message)
        times = medians({"reset": lambda: np.copyto(row, logits), "plain": lambda m=mask: plain_write(row, m)}, rounds)  # type: ignore[misc]
        times |= medians({"reset": lambda: np.copyto(row, logits), "ours": lambda m=mask: writer.write(row, m)}, rounds)  # type: ignore[misc]
        plain, ours = times["plain"] * 1000, times["ours"] * 1000
        table.add_row(f"{share:.3%}", f"{plain:.0f}", f"{ours:.0f}", f"{plain / ours:.1f}")
    return table


def grammar_table(tokenizer: Gemma4Tokenizer, compiler: GrammarCompiler, rounds: int) -> Table:
    """Time making, compiling and masking with the engine's own code, along one valid answer of each kind."""
    table = Table(title="Grammars", title_justify="left")
    for heading in ("request", "make, CPU ms", "compile, CPU ms", "mask, µs per token", "of it llguidance", "tokens"):
        table.add_column(heading, justify="left" if heading == "request" else "right")
    json_format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    thought = f"<|channel>thought\n{'Let me see. ' * 20}\n<channel|>"
    document = json.dumps(DOCUMENT, separators=(",", ":"))
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "json_schema": ({"response_format": json_format}, f"{document}<turn|>"),
        "one of 20 tools, required": ({"tools": tools(), "tool_choice": "required"}, f"{CALL}<|tool_response>"),
        "thought, then json_schema or tools": (
            {
                "response_format": json_format,
                "tools": tools(),
                "chat_template_kwargs": {"enable_thinking": True},
                "thinking_token_budget": 500,
            },
            f"{thought}{document}<turn|>",
        ),
    }
    for name, (fields, answer) in cases.items():
        table.add_row(name, *_grammar_figures(tokenizer, compiler, fields, answer, rounds))
    return table


def _grammar_figures(
    tokenizer: Gemma4Tokenizer, compiler: GrammarCompiler, fields: dict[str, Any], answer: str, rounds: int
) -> tuple[str, ...]:
    request = chat_request(messages=[{"role": "user", "content": "Hi"}], max_tokens=2000, **fields)
    prompt = render(request, tokenizer)

    def make() -> str:
        grammar = make_plan(request, prompt, tokenizer, context_tokens=100_000).grammar
        if grammar is None:
            message = f"no grammar for {sorted(fields)}"
            raise ValueError(message)
        return grammar

    grammar, stop_ids = make(), tokenizer.special.stop_ids
    made = milliseconds(make, rounds)
    # The compiler keeps what it has compiled, so each round gets a text of its own.
    texts = iter([grammar + "\n" * number for number in range(1, rounds + 1)])
    compiled = milliseconds(lambda: compiler.compile(next(texts), stop_ids), rounds)
    ids = tokenizer.encode_marked(answer)
    times: list[float] = []
    inner: list[float] = []
    for _ in range(rounds):
        state = compiler.compile(grammar, stop_ids)
        for token_id in ids:
            row = np.zeros(tokenizer.size, dtype=np.float32)
            start = time.process_time()
            state._matcher.compute_bitmask()  # noqa: SLF001 - the part that no other writing of the mask can save
            inner.append((time.process_time() - start) * 1e6)
            start = time.process_time()
            state.mask(row, stops_allowed=True)
            times.append((time.process_time() - start) * 1e6)
            if not np.isfinite(row[token_id]):
                message = f"the grammar of {sorted(fields)} forbids {tokenizer.decode_marked((token_id,))!r}"
                raise ValueError(message)
            state.accept(token_id)
    masks = [f"{statistics.median(part):.0f}" for part in (times, inner)]
    return f"{made:.2f}", f"{compiled:.1f}", *masks, str(len(ids))


def any_order(grammar: Grammar, comma: Node, members: list[tuple[Node, bool]], other: Node | None) -> Node:
    """Return members in any order, each once: a rule for every set of keys that may have been written."""
    if other is not None:
        message = "only objects without other keys are measured"
        raise ValueError(message)
    required = frozenset(index for index, (_, is_required) in enumerate(members) if is_required)
    rules: dict[frozenset[int], Node] = {frozenset(range(len(members))): EMPTY}

    def after(done: frozenset[int]) -> Node:
        if done not in rules:
            left = [index for index in range(len(members)) if index not in done]
            more = choice([sequence(comma, members[index][0], after(done | {index})) for index in left])
            rules[done] = grammar.add(more if required - done else optional(more))
        return rules[done]

    body = choice([sequence(member, after(frozenset({index}))) for index, (member, _) in enumerate(members)])
    return body if required else optional(body)


def order_table(tokenizer: Gemma4Tokenizer, compiler: GrammarCompiler, rounds: int) -> Table:
    """Time objects of two to five keys, two of them required, with keys in their one order and in any."""
    table = Table(title="Keys in one order / in any order", title_justify="left")
    for heading in ("request", "keys", "make, CPU ms", "compile, CPU ms", "mask, µs per token"):
        table.add_column(heading, justify="left" if heading == "request" else "right")
    for count in range(2, len(PROPERTIES) + 1):
        names = list(PROPERTIES)[:count]
        schema = {
            "type": "object",
            "properties": {name: PROPERTIES[name] for name in names},
            "required": names[:2],
            "additionalProperties": False,
        }
        value = {name: VALUES[name] for name in names}
        one = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        functions = [{"name": f"tool_{number}", "parameters": schema, "strict": True} for number in range(20)]
        many = [{"type": "function", "function": function} for function in functions]
        call = "<|tool_call>call:tool_1" + native_text(value, '<|"|>') + "<tool_call|><|tool_response>"
        cases: dict[str, tuple[dict[str, Any], str]] = {
            "json_schema": ({"response_format": one}, f"{json.dumps(value, separators=(',', ':'))}<turn|>"),
            "one of 20 tools": ({"tools": many, "tool_choice": "required"}, call),
        }
        for name, (fields, answer) in cases.items():
            fixed = _grammar_figures(tokenizer, compiler, fields, answer, rounds)
            with mock.patch.object(schema_grammar, "member_list", any_order):
                free = _grammar_figures(tokenizer, compiler, fields, answer, rounds)
            table.add_row(name, str(count), *(f"{a} / {b}" for a, b in zip(fixed[:3], free[:3], strict=True)))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="runs per figure; the median counts")
    rounds = parser.parse_args().rounds
    console = Console(width=120)
    tokenizer_json = lzma.decompress(TOKENIZER.read_bytes()).decode()
    tokenizer = Gemma4Tokenizer.from_json(tokenizer_json)
    console.print(write_table(tokenizer.size, 10 * rounds))
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(tokenizer_json)
        file.flush()
        start = time.process_time()
        compiler = GrammarCompiler(Path(file.name), tokenizer.size)
        loaded = time.process_time() - start
    table = grammar_table(tokenizer, compiler, rounds)
    table.caption = f"Loading the vocabulary, once: {loaded:.1f} s"
    console.print(table)
    console.print(order_table(tokenizer, compiler, rounds))


if __name__ == "__main__":
    main()
