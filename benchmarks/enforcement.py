"""``python -m benchmarks.enforcement``: how many answers break what the request asked for, ours and the peer's.

Every cell of ``benchmarks.enforcement_cases`` is asked with many seeds at a high temperature, of the product with a
demo checkpoint and of llama.cpp's own server with the same file. An answer that the token limit cut proves nothing and
is counted apart; so is a request that the server refused.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.enforcement_cases import CASES, Case
from benchmarks.processes import accepts, free_port, running
from benchmarks.rendering import load_template

ROOT: Final = Path(__file__).parent.parent
CHECKPOINT: Final = ROOT / "demo" / "checkpoints" / "demo-moe"
QUESTIONS: Final = (
    "What is the weather like in Oslo?",
    "Hello! Who are you?",
    "What is 17 plus 5?",
    "Please move three steps to the north.",
)
AT_ONCE: Final = 4
MAX_TOKENS: Final = 300
_TIMEOUT_S: Final = 60


@dataclass
class Tally:
    """What became of the requests of one cell."""

    violations: int = 0
    cut: int = 0
    refused: int = 0
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    calls: int = 0

    def text(self, total: int) -> str:
        """Return the cell of the table."""
        if self.refused == total:
            return "refused"
        counts = {"with calls": self.calls, "cut": self.cut, "refused": self.refused}
        notes = [f"{count} {name}" for name, count in counts.items() if count]
        return str(self.violations) + (f"  ({', '.join(notes)})" if notes else "")


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask."""

    url: str
    is_peer: bool

    def ask(self, case: Case, seed: int, temperature: float) -> dict[str, Any] | str:
        """Return the choice, or what went wrong."""
        body = {
            "messages": [{"role": "user", "content": QUESTIONS[seed % len(QUESTIONS)]}],
            "temperature": temperature,
            "top_k": 64,
            "top_p": 0.95,
            "min_p": 0.0,
            "seed": seed,
            "max_tokens": MAX_TOKENS,
            **(case.peer_fields if self.is_peer else case.fields),
        }
        if self.is_peer and "chat_template_kwargs" not in body:
            # Its default is to think.
            body["chat_template_kwargs"] = {"enable_thinking": False}
        try:
            response = requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            return type(error).__name__
        if response.status_code != requests.codes.ok:
            return f"HTTP {response.status_code}: {response.text[:160]}"
        choice: dict[str, Any] = response.json()["choices"][0]
        return choice

    def run(self, case: Case, count: int, temperature: float) -> Tally:
        """Ask one cell with all seeds."""
        tally = Tally()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for choice in pool.map(lambda seed: self.ask(case, seed, temperature), range(count)):
                judge(case, choice, tally)
        return tally


def judge(case: Case, choice: dict[str, Any] | str, tally: Tally) -> None:
    """Count one answer."""
    if isinstance(choice, str):
        tally.refused += 1
        tally.kinds[choice] += 1
        return
    message = choice["message"]
    tally.calls += bool(message.get("tool_calls"))
    if choice["finish_reason"] == "length":
        tally.cut += 1
        return
    wrongs = {wrong for check in case.judges for wrong in check(message)}
    tally.violations += bool(wrongs)
    tally.kinds.update(wrongs)


@contextmanager
def product(checkpoint: Path, folder: Path) -> Iterator[Target]:
    """Run the product as a user starts it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {
        "NIM_SERVER_PORT": str(port),
        "NIM_SERVER_HOST": "127.0.0.1",
        "NIM_MODEL_PATH": str(checkpoint),
        "NIM_CACHE_PATH": str(folder),
    }

    def is_ready() -> bool:
        return accepts(port) and requests.get(f"{url}/v1/health/ready", timeout=5).ok

    with running(["-m", "launcher", "serve"], is_ready, folder / "serve.log", variables=variables):
        yield Target(url, is_peer=False)


@contextmanager
def peer(checkpoint: Path, folder: Path) -> Iterator[Target]:
    """Run llama.cpp's own server."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    template = folder / "template.jinja"
    template.write_text(load_template())
    arguments = ["-m", "benchmarks.llama_server", "--model", str(checkpoint / "model.gguf")]
    arguments += ["--template", str(template), "--port", str(port), "--parallel", str(AT_ONCE)]

    def is_ready() -> bool:
        return accepts(port) and requests.get(f"{url}/health", timeout=5).ok

    with running(arguments, is_ready, folder / "peer.log"):
        yield Target(url, is_peer=True)


def main() -> None:
    """Run the matrix and print it; exit 1 when the product broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="requests per cell and server")
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="folder with model.gguf and tokenizer.json")
    parser.add_argument("--only", default="", help="run the cells whose name contains this")
    parser.add_argument("--no-peer", action="store_true", help="measure the product alone")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    cases = [case for case in CASES if options.only in case.name]
    names = ["gemma4-nim"] if options.no_peer else ["gemma4-nim", "llama.cpp's server"]
    table = Table(title=f"Violations in {options.seeds} answers at temperature {options.temperature}")
    for heading in ("request", *names, "what was wrong"):
        table.add_column(heading, justify="left")
    broken = 0
    with tempfile.TemporaryDirectory(prefix="gemma4-bench-") as name, ExitStack() as stack:
        targets = [stack.enter_context(product(options.checkpoint, Path(name)))]
        if not options.no_peer:
            targets.append(stack.enter_context(peer(options.checkpoint, Path(name))))
        for case in track(cases, "asking", console=console, transient=True):
            tallies = [target.run(case, options.seeds, options.temperature) for target in targets]
            broken += tallies[0].violations + tallies[0].refused
            table.add_row(case.name, *(tally.text(options.seeds) for tally in tallies), _explain(names, tallies))
    console.print(table)
    sys.exit(1 if broken else 0)


def _explain(names: list[str], tallies: list[Tally]) -> str:
    """List the kinds of violations, the most frequent ones first."""
    return "; ".join(
        f"{name}: " + ", ".join(f"{kind} {count}" for kind, count in tally.kinds.most_common(2))
        for name, tally in zip(names, tallies, strict=True)
        if tally.kinds
    )


if __name__ == "__main__":
    main()
