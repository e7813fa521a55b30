"""``python -m benchmarks.rendering``: prompts, answers and grammars at the real vocabulary of 262,144 tokens.

Rendering is compared with Jinja2 and the model family's published template, which is read from the ``trl`` package's
wheel at run time and kept nowhere else. Both sides start from decoded JSON; ours ends in token ids, the template in
text, which is tokenised in a second figure. Parsing and grammars are timed alone. All times are CPU times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from api.chat.request import ChatRequest
from api.dialects.openai_chat import parse_chat_request
from api.gemma4.parse import Parser
from api.gemma4.plan import make_plan
from api.gemma4.prompt import PromptState
from api.gemma4.render import render
from api.gemma4.token_cache import TokenCache
from api.gemma4.tokenizer import Gemma4Tokenizer
from benchmarks.conversations import messages, tools
from engine.llama_cpp.grammar import GrammarCompiler

ROOT: Final = Path(__file__).parent.parent
TOKENIZER: Final = ROOT / "tests" / "data" / "gemma4" / "tokenizer.json.xz"
TEMPLATE_PACKAGE: Final = "trl==1.16.0"
TEMPLATE: Final = "trl/chat_templates/gemma4_v5.jinja"
_CACHE_CHARACTERS: Final = 4_000_000

CALL: Final = (
    '<|tool_call>call:tool_1{opts:{a:<|"|>x<|"|>,b:[<|"|>y<|"|>]},p0:<|"|>New York<|"|>,p1:2,p2:true}<tool_call|>'
)
ANSWERS: Final = {
    "prose": "The quick brown fox jumps over the lazy dog. It is a fine day, and nothing is lost.\n" * 400,
    "a thought, then an answer": "<|channel>thought\n" + "Let me think, step by step.\n" * 800 + "<channel|>Done.",
    "calls": CALL * 150,
    "one long string argument": '<|tool_call>call:tool_1{p0:<|"|>'
    + 'def f(x):\n    return {"a": [x]}\n' * 600
    + '<|"|>,p1:1}<tool_call|>',
}
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


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median CPU time of ``work``: unlike the clock's, it leaves out what other programs take."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times) * 1000


def load_template() -> str:
    """Return the template's text, downloading its package into ``build/`` the first time.

    Raises:
        subprocess.CalledProcessError: it could not be downloaded.
    """
    folder = ROOT / "build" / "benchmarks"
    if not any(folder.glob("trl-*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*command, TEMPLATE_PACKAGE], check=True)  # noqa: S603 - this interpreter's pip
    with zipfile.ZipFile(next(folder.glob("trl-*.whl"))) as wheel:
        return wheel.read(TEMPLATE).decode()


def chat_request(**fields: Any) -> ChatRequest:
    """Return the canonical request of a body in OpenAI's form."""
    return parse_chat_request({"model": "m", **fields}, served_names=["m"], lenient=False).request


def render_table(tokenizer: Gemma4Tokenizer, tokenizer_json: str, rounds: int) -> Table:
    """Time rendering, ours and the template's; check that both make the same ids."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    source = load_template()
    template = environment.from_string(source)
    plain = Tokenizer.from_str(tokenizer_json)
    body = {"messages": messages(), "tools": tools()}
    request = chat_request(**body, chat_template_kwargs={"enable_thinking": True})

    def jinja() -> str:
        return template.render(**body, add_generation_prompt=True, enable_thinking=True, bos_token="<bos>")  # noqa: S106

    def jinja_ids() -> list[int]:
        return list(plain.encode(jinja(), add_special_tokens=False).ids)

    def cold() -> object:
        tokenizer._cache = TokenCache(_CACHE_CHARACTERS)  # noqa: SLF001 - a server that has seen nothing yet
        tokenizer.declarations = TokenCache(_CACHE_CHARACTERS)
        return render(request, tokenizer)

    own = render(request, tokenizer)
    same = "the same ids" if list(own.ids) == jinja_ids() else "NOT the same ids"
    first = milliseconds(lambda: environment.from_string(source), 3)
    figures = {
        "Jinja2, text only": milliseconds(jinja, rounds),
        "Jinja2, then tokenised": milliseconds(jinja_ids, rounds),
        "ours, ids, seen before": milliseconds(lambda: render(request, tokenizer), rounds),
        "ours, ids, nothing seen before": milliseconds(cold, rounds),
    }
    table = Table(title=f"40 messages and 20 tools, {len(own.ids)} tokens, {same}", title_justify="left")
    for heading in ("renderer", "CPU ms, median", "times as fast as the text only", "times as fast as the ids"):
        table.add_column(heading, justify="left" if heading == "renderer" else "right")
    text, ids = figures["Jinja2, text only"], figures["Jinja2, then tokenised"]
    for name, value in figures.items():
        table.add_row(name, f"{value:.2f}", f"{text / value:.1f}", f"{ids / value:.1f}")
    table.caption = f"Compiling the template, once per process: {first:.0f} ms"
    return table


def parse_table(tokenizer: Gemma4Tokenizer, rounds: int) -> Table:
    """Time the parser on answers of each kind, by one id and by 64 ids at a time."""
    declared = chat_request(messages=messages(), tools=tools()).tools
    table = Table(title="Parsing and detokenising", title_justify="left")
    for heading in ("answer", "tokens", "one at a time, tokens per CPU second", "64 at a time"):
        table.add_column(heading, justify="left" if heading == "answer" else "right")

    def parse(ids: Sequence[int], size: int) -> None:
        numbers = itertools.count()
        new_turn = PromptState.NEW_TURN
        parser = Parser(tokenizer, new_turn, tools=declared, new_call_id=lambda: f"call{next(numbers)}")
        for start in range(0, len(ids), size):
            parser.feed(ids[start : start + size])
        parser.finish(cut=False)

    for name, text in ANSWERS.items():
        ids = tokenizer.encode_marked(text)
        rates = [len(ids) / milliseconds(lambda s=size, i=ids: parse(i, s), rounds) * 1000 for size in (1, 64)]  # type: ignore[misc]
        table.add_row(name, f"{len(ids):,}", *(f"{rate:,.0f}" for rate in rates))
    return table


def grammar_table(tokenizer: Gemma4Tokenizer, tokenizer_path: Path, rounds: int) -> Table:
    """Time making, compiling and masking with the engine's own code, along one valid answer of each kind."""
    start = time.process_time()
    compiler = GrammarCompiler(tokenizer_path, tokenizer.size)
    loaded = time.process_time() - start
    table = Table(title="Grammars", title_justify="left", caption=f"Loading the vocabulary, once: {loaded:.1f} s")
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="runs per figure; the median counts")
    rounds = parser.parse_args().rounds
    console = Console(width=120)
    tokenizer_json = lzma.decompress(TOKENIZER.read_bytes()).decode()
    tokenizer = Gemma4Tokenizer.from_json(tokenizer_json)
    console.print(render_table(tokenizer, tokenizer_json, rounds))
    console.print(parse_table(tokenizer, rounds))
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(tokenizer_json)
        file.flush()
        console.print(grammar_table(tokenizer, Path(file.name), rounds))


if __name__ == "__main__":
    main()
