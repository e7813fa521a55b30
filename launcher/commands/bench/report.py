"""Shows what was measured: one line per level of load, and the distribution of every latency."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from launcher.commands.bench.statistics import PERCENTILES, Distribution, Figures

_MS = 1000.0


def show(console: Console, results: Sequence[Figures]) -> None:
    """Write tables for people."""
    console.print(_levels(results))
    for figures in results:
        if figures.completed:
            console.print(_latencies(figures))
        for error, count in figures.errors.items():
            console.print(f"{count} of {count + figures.completed} requests failed: {error}", style="red", markup=False)


def _levels(results: Sequence[Figures]) -> Table:
    table = Table(title="Throughput", title_justify="left", header_style="bold")
    columns = (
        "at once",
        "requests",
        "failed",
        "tokens in",
        "tokens out",
        "requests/s",
        "output tokens/s",
        "all tokens/s",
    )
    for name in columns:
        table.add_column(name, justify="right")
    for figures in results:
        completed = figures.completed or 1
        table.add_row(
            f"{figures.concurrency}",
            f"{figures.completed}",
            f"{sum(figures.errors.values())}",
            f"{figures.prompt_tokens / completed:.0f}",
            f"{figures.completion_tokens / completed:.0f}",
            f"{figures.request_rate:.2f}",
            f"{figures.output_rate:.1f}",
            f"{figures.total_rate:.1f}",
        )
    return table


def _latencies(figures: Figures) -> Table:
    table = Table(title=f"Latency, {figures.concurrency} at once (ms)", title_justify="left", header_style="bold")
    table.add_column("")
    for name in ("mean", *(f"p{share}" for share in PERCENTILES), "longest"):
        table.add_column(name, justify="right")
    for name, values in (
        ("to the first token", figures.ttft),
        ("per token after it", figures.token_time),
        ("between messages", figures.gaps),
        ("whole request", figures.request_time),
    ):
        if values is not None:
            table.add_row(name, *_row(values))
    return table


def _row(values: Distribution) -> list[str]:
    seconds = [values.mean, *(values.percentiles[share] for share in PERCENTILES), values.largest]
    return [f"{each * _MS:.1f}" for each in seconds]
