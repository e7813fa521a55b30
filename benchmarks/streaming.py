"""``python -m benchmarks.streaming``: streamed tokens per second of CPU time that the HTTP server process uses.

Ours is the real API process over a scripted engine on the real wire, with detokenising and parsing. The peer is
``benchmarks.peer``, over the same engine on the same wire, over the same engine with an RPC per request, and with
tokens that cost it nothing. Server on one core, engine and client on the other; the rounds of all variants alternate,
and the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import requests
from rich.console import Console
from rich.table import Table

from api.gemma4.tokenizer import Gemma4Tokenizer
from benchmarks.peer import TOKEN_TEXT
from benchmarks.processes import accepts, cpu_seconds, cpu_ticks, free_port, run_json, running

MODEL: Final = "benchmark"
HEADINGS: Final = (
    "streams",
    "server",
    "tokens per CPU second",
    "µs per token",
    "in the kernel",
    "tokens/s",
    "tokens/event",
    "ours is",
)
TOKENIZER: Final = Path(__file__).parent.parent / "tests" / "data" / "gemma4" / "tokenizer.json.xz"
PARAGRAPH: Final = (
    "The harbour was quiet when the last ferry came in, and the keeper counted her lights twice, as he always did. "
    "He wrote the hour in the book: 21:47, wind from the north-west, sea calm. “Nothing to report”, he added, "
    "which was not quite true; for there had been a second ship behind her, without any lights at all.\n\n"
)


@dataclass(frozen=True, slots=True)
class Load:
    """How long a step of the engine takes, and how many tokens each answer has, about."""

    name: str
    step_ms: float
    tokens: int


LOADS: Final = (
    Load("50 tokens/s in each stream", 20.0, 500),
    Load("200 tokens/s in each stream", 5.0, 1000),
    Load("1,000 tokens/s in each stream", 1.0, 1000),
)


@dataclass
class Variant:
    """A server under measurement."""

    name: str
    port: int
    pid: int
    characters_per_round: int
    """Characters of ``tokens_per_round`` tokens."""
    tokens_per_round: int
    rates: list[float] = field(default_factory=list)
    kernel_shares: list[float] = field(default_factory=list)
    tokens_per_event: float = 0.0
    tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Workplace:
    """Files and cores that all servers of a run share."""

    folder: Path
    tokenizer: Gemma4Tokenizer
    ids: tuple[int, ...]
    server_core: int | None
    other_core: int | None


def measure(variant: Variant, streams: int, tokens: int, core: int | None) -> None:
    """Read ``streams`` answers of ``tokens`` tokens each and add the rate to the variant.

    Raises:
        ValueError: the text that arrived is not the text that was sent.
    """
    arguments = ["-m", "benchmarks.stream_client", "--port", str(variant.port), "--model", MODEL]
    arguments += ["--max-tokens", str(tokens), "--streams", str(streams)]
    before, split_before = cpu_seconds(variant.pid), cpu_ticks(variant.pid)
    result = run_json(arguments, timeout_s=120, core=core)
    used = cpu_seconds(variant.pid) - before
    user, kernel = (after - start for after, start in zip(cpu_ticks(variant.pid), split_before, strict=True))
    expected = streams * tokens // variant.tokens_per_round * variant.characters_per_round
    if result["characters"] != expected:
        message = f"{variant.name}: {result['characters']} characters arrived instead of {expected}"
        raise ValueError(message)
    variant.rates.append(streams * tokens / used)
    variant.kernel_shares.append(kernel / max(1, user + kernel))
    variant.tokens_per_event = streams * tokens / result["events"]
    variant.tokens_per_s = streams * tokens / result["elapsed_s"]


@contextmanager
def engine(place: Workplace, load: Load) -> Iterator[str]:
    """Run the scripted engine; its address."""
    socket_path = place.folder / f"engine-{time.monotonic_ns()}.sock"
    ids_path = place.folder / "ids.json"
    ids_path.write_text(json.dumps(place.ids))
    endpoint = f"unix:{socket_path}"
    arguments = ["-m", "benchmarks.scripted_engine", "--endpoint", endpoint]
    arguments += ["--ids", str(ids_path), "--step-ms", str(load.step_ms)]
    with running(arguments, socket_path.exists, place.folder / "engine.log", core=place.other_core):
        yield endpoint


@contextmanager
def ours(place: Workplace, name: str, endpoint: str, module: str = "api", *options: str) -> Iterator[Variant]:
    """Run the real API process over an engine, or ``benchmarks.local_api`` in its place."""
    runtime_path = place.folder / f"{module}.json"
    runtime = {
        "engine_endpoints": [endpoint],
        "tokenizer_path": str(place.folder / "tokenizer.json"),
        "served_names": [MODEL],
        "created": 1_790_000_000,
    }
    runtime_path.write_text(json.dumps(runtime))
    port = free_port()
    variables = {"NIM_SERVER_PORT": str(port), "NIM_SERVER_HOST": "127.0.0.1", "NIM_LOG_LEVEL": "WARNING"}

    def is_ready() -> bool:
        return accepts(port) and requests.get(f"http://127.0.0.1:{port}/v1/health/ready", timeout=5).ok

    arguments = ["-m", module, "--runtime", str(runtime_path), *options]
    log_path = place.folder / f"{module}.log"
    with running(arguments, is_ready, log_path, core=place.server_core, variables=variables) as process:
        characters = len(place.tokenizer.decode_marked(place.ids))
        yield Variant(name, port, process.pid, characters, len(place.ids))


@contextmanager
def peer(place: Workplace, name: str, *options: str) -> Iterator[Variant]:
    """Run the usual server."""
    port = free_port()
    arguments = ["-m", "benchmarks.peer", "--port", str(port), *options]
    log_path = place.folder / f"peer-{port}.log"
    with running(arguments, lambda: accepts(port), log_path, core=place.server_core) as process:
        yield Variant(name, port, process.pid, len(TOKEN_TEXT), 1)


def run_load(place: Workplace, load: Load, stream_counts: list[int], rounds: int, console: Console) -> None:
    """Measure all variants under one load and print the table."""
    table = Table(title=load.name, title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "server" else "right")
    with ExitStack() as stack:
        endpoint = stack.enter_context(engine(place, load))
        ids = ("--ids", str(place.folder / "ids.json"))
        step = ("--step-ms", str(load.step_ms))
        over = ("--engine", endpoint, "--wire")
        servers = [
            stack.enter_context(ours(place, "ours", endpoint)),
            stack.enter_context(peer(place, "peer, same engine and wire", *over, "batched")),
            stack.enter_context(peer(place, "peer, same engine, RPC per request", *over, "plain")),
            stack.enter_context(peer(place, "peer, tokens for free", *step)),
            stack.enter_context(ours(place, "ours, tokens for free", endpoint, "benchmarks.local_api", *ids, *step)),
        ]
        for streams in stream_counts:
            _run_streams(place, servers, load, streams, rounds)
            _add_rows(table, servers, streams)
    console.print(table)


def _run_streams(place: Workplace, servers: list[Variant], load: Load, streams: int, rounds: int) -> None:
    period = len(place.ids)
    tokens = max(1, round(load.tokens / period)) * period
    for server in servers:
        measure(server, streams, period, place.other_core)
        server.rates.clear()
        server.kernel_shares.clear()
    for _ in range(rounds):
        for server in servers:
            measure(server, streams, tokens, place.other_core)


def _add_rows(table: Table, servers: list[Variant], streams: int) -> None:
    own = statistics.median(servers[0].rates)
    for server in servers:
        rate = statistics.median(server.rates)
        times = "" if server is servers[0] else f"{own / rate:.1f} times"
        figures = (f"{rate:,.0f}", f"{1e6 / rate:.1f}", f"{statistics.median(server.kernel_shares):.0%}")
        pace = (f"{server.tokens_per_s:,.0f}", f"{server.tokens_per_event:.2f}")
        table.add_row(str(streams), server.name, *figures, *pace, times)
    table.add_section()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--rounds", type=int, default=3, help="runs per figure; the median counts")
    parser.add_argument("--loads", type=int, nargs="+", default=list(range(len(LOADS))), help="numbers of the loads")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    console = Console(width=140)
    with tempfile.TemporaryDirectory(prefix="gemma4-bench-") as name:
        folder = Path(name)
        tokenizer_json = lzma.decompress(TOKENIZER.read_bytes()).decode()
        (folder / "tokenizer.json").write_text(tokenizer_json)
        tokenizer = Gemma4Tokenizer.from_json(tokenizer_json)
        ids = tokenizer.encode(PARAGRAPH)
        place = Workplace(folder, tokenizer, ids, *((cores[0], cores[1]) if len(cores) > 1 else (None, None)))
        for number in options.loads:
            run_load(place, LOADS[number], options.streams, options.rounds, console)


if __name__ == "__main__":
    main()
