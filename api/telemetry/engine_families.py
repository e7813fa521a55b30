"""What the engines tell of themselves, as metrics: asked for when somebody reads them, and absent where not known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from api.telemetry.families import PREFIX
from engine.core import EngineReport

LABEL: Final = "engine"
_LOCAL: Final = "local"
_SECOND_US: Final = 1e6


def _ratio(report: EngineReport) -> float | None:
    used, total = report.counts.get("kv_tokens_used"), report.counts.get("kv_tokens")
    return None if used is None or not total else used / total


GAUGES: Final[tuple[tuple[str, str, Callable[[EngineReport], float | None]], ...]] = (
    ("engine_up", "Whether the engine answers and has loaded its model", lambda report: float(bool(report.counts))),
    ("engine_running_sequences", "Sequences that are being generated", lambda report: report.counts.get("running")),
    ("engine_queued_sequences", "Sequences that wait for a place", lambda report: report.counts.get("queued")),
    (
        "engine_max_sequences",
        "Sequences that can be generated at the same time",
        lambda report: report.limits.max_sequences if report.limits else None,
    ),
    (
        "engine_max_queued",
        "Sequences that may wait; one more is refused",
        lambda report: report.limits.max_queued if report.limits else None,
    ),
    (
        "engine_context_tokens",
        "Prompt plus completion of one sequence at most",
        lambda report: report.limits.context_tokens if report.limits else None,
    ),
    ("engine_kv_cache_tokens", "Places for tokens in the KV cache", lambda report: report.counts.get("kv_tokens")),
    (
        "engine_kv_cache_usage_ratio",
        "Share of the KV cache that running sequences have filled, 0 to 1",
        _ratio,
    ),
)
"""Name without prefix, help, and how to read it; None is left out."""

COUNTERS: Final = (
    ("engine_requests", "Sequences that the engine was asked for since it started", "requests_total"),
    ("engine_prompt_tokens", "Tokens of prompts since the engine started", "prompt_tokens_total"),
    ("engine_cached_prompt_tokens", "Of these, tokens found in the prefix cache", "cached_tokens_total"),
    ("engine_generation_tokens", "Tokens drawn since the engine started, step by step", "completion_tokens_total"),
    ("engine_preemptions", "Running sequences that had to give up their KV cache and wait", "preemptions_total"),
)
"""Name without prefix and ``_total``, help, and the field of ``EngineStats``."""

SUMMARIES: Final = (
    ("engine_queue_seconds", "Time that sequences spent in the queue", "started_total", "queue_us_total"),
    ("engine_grammar_compile_seconds", "Compiling grammars", "grammars_total", "grammar_us_total"),
    ("engine_image_encode_seconds", "Encoding pictures in the vision tower", "images_total", "image_us_total"),
)
"""Name without prefix, help, and the fields of count and sum."""


def engine_families(reports: Sequence[EngineReport]) -> Iterator[Metric]:
    """Yield the families that at least one engine has a value for."""
    named = [(_name(report.address), report) for report in reports]
    for name, text, read in GAUGES:
        gauge = GaugeMetricFamily(PREFIX + name, text, labels=(LABEL,))
        for engine, report in named:
            value = read(report)
            if value is not None:
                gauge.add_metric((engine,), value)
        yield gauge
    for name, text, key in COUNTERS:
        counter = CounterMetricFamily(PREFIX + name, text, labels=(LABEL,))
        for engine, report in named:
            if key in report.counts:
                counter.add_metric((engine,), report.counts[key])
        yield counter
    for name, text, count, total in SUMMARIES:
        summary = SummaryMetricFamily(PREFIX + name, text, labels=(LABEL,))
        for engine, report in named:
            if count in report.counts and total in report.counts:
                summary.add_metric((engine,), report.counts[count], report.counts[total] / _SECOND_US)
        yield summary


def sum_of(reports: Iterable[EngineReport], read: Callable[[EngineReport], float | None]) -> float | None:
    """Return the sum over the engines that know it; None when none does."""
    known = [value for value in map(read, reports) if value is not None]
    return sum(known) if known else None


def _name(address: str) -> str:
    return _LOCAL if address.startswith("unix:") else address
