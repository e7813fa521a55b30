"""``python -m benchmarks.rendering``: prompts and answers at the real vocabulary of 262,144 tokens.

Rendering is compared with Jinja2 and the model family's published template, which is read from the ``trl`` package's
wheel at run time and kept nowhere else. Both sides start from decoded JSON; text is compared with text, and ids with
the template's text tokenised. Parsing is timed alone. All times are CPU times.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import lzma
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from api.chat.request import ChatRequest
from api.dialects.openai_chat import parse_chat_request
from api.gemma4.parse import Parser
from api.gemma4.prompt import PromptState
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from benchmarks.conversations import messages, tools

ROOT: Final = Path(__file__).parent.parent
TOKENIZER: Final = ROOT / "tests" / "data" / "gemma4" / "tokenizer.json.xz"
TEMPLATE_PACKAGE: Final = "trl==1.16.0"
TEMPLATE: Final = "trl/chat_templates/gemma4_v5.jinja"

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


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median CPU time of ``work``: unlike the clock's, it leaves out what other programs take."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times) * 1000


def medians(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time several in turn, so that a busy spell of the machine falls on all of them alike; the medians count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) * 1000 for name, values in times.items()}


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
    """Time rendering, ours and the template's; check that both make the same ids and the same text."""
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

    own, text = render(request, tokenizer), _text_renderer(request, tokenizer)
    same = list(own.ids) == jinja_ids() and own.text == text() == jinja()
    first = milliseconds(lambda: environment.from_string(source), 3)
    declarations = tokenizer.declarations

    def render_with(*, known_tools: bool) -> object:
        tokenizer.forget()
        if known_tools:
            tokenizer.declarations = declarations
        return render(request, tokenizer)

    times = medians(
        {
            "text: Jinja2": jinja,
            "text: ours, nothing seen before": text,
            "ids: Jinja2, then tokenised": jinja_ids,
            "ids: ours, nothing seen before": lambda: render_with(known_tools=False),
            "ids: ours, the tools seen before": lambda: render_with(known_tools=True),
            "ids: ours, all seen before": lambda: render(request, tokenizer),
        },
        rounds,
    )
    words = "the same text and ids" if same else "NOT the same text and ids"
    table = Table(title=f"40 messages and 20 tools, {len(own.ids)} tokens, {words}", title_justify="left")
    for heading in ("renderer", "CPU ms, median", "times as fast as the same of Jinja2", "as Jinja2's text"):
        table.add_column(heading, justify="left" if heading == "renderer" else "right")
    peers = {"text": times["text: Jinja2"], "ids": times["ids: Jinja2, then tokenised"]}
    for name, value in times.items():
        kind = name.partition(":")[0]
        table.add_row(name, f"{value:.2f}", f"{peers[kind] / value:.1f}", f"{peers['text'] / value:.1f}")
    table.caption = f"Compiling the template, once per process: {first:.0f} ms"
    return table


def _text_renderer(request: ChatRequest, tokenizer: Gemma4Tokenizer) -> Callable[[], str]:
    """Return our renderer as one that makes text, as the template does: each text takes the place of its ids."""
    textual = copy.copy(tokenizer)
    textual.encode_all = lambda texts: [(text,) for text in texts]  # type: ignore[method-assign, misc]

    def text() -> str:
        textual.forget()
        ids: tuple[int | str, ...] = render(request, textual).ids
        return "".join([part if isinstance(part, str) else tokenizer.name(part) or "" for part in ids])

    return text


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


if __name__ == "__main__":
    main()
