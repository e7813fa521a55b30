"""The command itself: options, levels one after the other with a progress bar, results as tables or JSON."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Final

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from launcher.commands.bench.load import Level, LoadRun, Request, calibrate
from launcher.commands.bench.options import (
    Concurrency,
    InputTokens,
    NaturalEnd,
    OutputTokens,
    Rate,
    Requests,
    Seconds,
    Seed,
    Warmup,
)
from launcher.commands.bench.report import show
from launcher.commands.bench.statistics import Figures, summarise
from launcher.commands.bench.stream_request import Sample
from launcher.commands.options import AsJson, ClientCert, KeyFile, Model, Url, Wait
from launcher.commands.running_server import find_server, wait_for_model
from launcher.commands.server_client import Server
from launcher.errors import ExitCode, LaunchError

FEWEST_REQUESTS: Final = 16
REQUESTS_PER_PLACE: Final = 4
MOST_REQUESTS: Final = 1_000_000
WIDTH: Final = 120
INTERRUPTED: Final = 130


def bench(  # noqa: PLR0913 - each is an option of the command line
    *,
    url: Url = None,
    model: Model = None,
    concurrency: Concurrency = "1,4",
    requests: Requests = None,
    seconds: Seconds = None,
    rate: Rate = None,
    input_tokens: InputTokens = 128,
    output_tokens: OutputTokens = 128,
    natural_end: NaturalEnd = False,
    warmup: Warmup = 2,
    seed: Seed = 0,
    as_json: AsJson = False,
    key_file: KeyFile = None,
    client_cert: ClientCert = None,
    wait: Wait = 600,
) -> None:
    """Measure a running server.

    Sends streamed chat requests with random prompts, of which no two begin alike, and reports rates and latencies as a
    client sees them: time to the first token from the moment the request is sent over an open connection, time per
    token after it, and percentiles of each. The lengths shown are those that the server counted.

    Ctrl-C ends the run and shows what was measured by then. The status is 75 when a request failed.
    """
    levels = _levels(concurrency, requests, seconds, rate)
    server = find_server(url, key_file, client_cert)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    notes = Console(stderr=True, highlight=False)
    with notes.status("") as status:
        name = wait_for_model(server, model, wait, status.update)
    source = random.Random(seed)  # noqa: S311 - prompts, not secrets
    request = _request(server, name, source, (input_tokens, output_tokens), natural_end=natural_end)
    _warm_up(server, request, warmup, source)
    results, is_complete = _measure(server, request, levels, source, notes)
    if as_json:
        sys.stdout.write(json.dumps(_record(server, request, results), indent=2) + "\n")
    else:
        show(console, results)
    if not is_complete:
        raise typer.Exit(INTERRUPTED)
    if failed := sum(sum(figures.errors.values()) for figures in results):
        raise LaunchError(ExitCode.DOWNLOAD_FAILED, f"{failed} requests failed", "look at the server's log")


def _levels(text: str, requests: int | None, seconds: float | None, rate: float | None) -> list[Level]:
    counts = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    if min(counts) < 1:
        message = f"--concurrency {text!r} is no list of numbers"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "write it like 1,4,16")
    usual = MOST_REQUESTS if seconds is not None else None
    return [
        Level(count, requests or usual or max(FEWEST_REQUESTS, REQUESTS_PER_PLACE * count), seconds, rate)
        for count in counts
    ]


def _request(
    server: Server, model: str, source: random.Random, lengths: tuple[int, int], *, natural_end: bool
) -> Request:
    cost = uvloop.run(calibrate(server, model, source))
    return Request(model, cost.words(lengths[0]), lengths[1], natural_end=natural_end)


def _warm_up(server: Server, request: Request, count: int, source: random.Random) -> None:
    if count:
        uvloop.run(LoadRun(server, request, Level(1, count), source).run(lambda _: None))


def _measure(
    server: Server, request: Request, levels: Sequence[Level], source: random.Random, notes: Console
) -> tuple[list[Figures], bool]:
    """Run every level; tell whether all of them ran to their end."""
    results: list[Figures] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, TimeRemainingColumn(), console=notes, disable=not notes.is_terminal) as progress:
        for level in levels:
            run = LoadRun(server, request, level, source)
            bar = _Bar(progress, level)
            try:
                uvloop.run(run.run(bar.advance))
            except KeyboardInterrupt:
                results.append(summarise(run.samples, level.concurrency, level.rate))
                return results, False
            results.append(summarise(run.samples, level.concurrency, level.rate))
    return results, True


class _Bar:
    """The progress bar of one level."""

    def __init__(self, progress: Progress, level: Level) -> None:
        self._progress = progress
        self._began = time.perf_counter()
        self._tokens = 0
        total = None if level.seconds is not None else level.requests
        self._task = progress.add_task(f"{level.concurrency} at once", total=total, speed="")

    def advance(self, sample: Sample) -> None:
        """Count one more request."""
        self._tokens += sample.completion_tokens
        speed = self._tokens / (time.perf_counter() - self._began)
        self._progress.update(self._task, advance=1, speed=f"{speed:.0f} tokens/s")


def _record(server: Server, request: Request, results: Sequence[Figures]) -> dict[str, object]:
    return {
        "url": server.url,
        "model": request.model,
        "output_tokens_wanted": request.output_tokens,
        "natural_end": request.natural_end,
        "levels": [figures.record() for figures in results],
    }
