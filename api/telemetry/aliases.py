"""The names under which dashboards and autoscalers of NIM 1.x and of vLLM look for the same figures.

An alias is only there where its value is known; what has no counterpart here has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from api.telemetry.engine_families import sum_of
from api.telemetry.families import PREFIX
from engine.core import EngineReport

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_STOP: Final = MappingProxyType({"tool_calls": "stop"})
"""What only the dialect knows -> the engine's own word for it."""


@dataclass(frozen=True, slots=True)
class Alias:
    """Other names of a family that this process counts.

    Attributes:
        own: its name, without prefix, and without ``_total`` for a counter.
        names: the other names, in the same form.
        labels: of its labels, those that are kept -> their name there; the values of all others are added up.
        where: only samples with these values of labels count.
    """

    own: str
    names: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=lambda: _NONE)
    where: Mapping[str, str] = field(default_factory=lambda: _NONE)


COUNTED: Final = (
    Alias("prompt_tokens", ("prompt_tokens", "vllm:prompt_tokens", "vllm:prefix_cache_queries")),
    Alias("cached_prompt_tokens", ("vllm:prefix_cache_hits",)),
    Alias("generation_tokens", ("generation_tokens", "vllm:generation_tokens")),
    Alias("time_to_first_token_seconds", ("time_to_first_token_seconds", "vllm:time_to_first_token_seconds")),
    Alias(
        "inter_token_latency_seconds",
        ("time_per_output_token_seconds", "vllm:time_per_output_token_seconds", "vllm:inter_token_latency_seconds"),
    ),
    Alias("request_time_per_output_token_seconds", ("vllm:request_time_per_output_token_seconds",)),
    Alias("request_duration_seconds", ("e2e_request_latency_seconds", "vllm:e2e_request_latency_seconds")),
    Alias("request_generation_seconds", ("vllm:request_decode_time_seconds",)),
    Alias("request_prompt_tokens", ("request_prompt_tokens", "vllm:request_prompt_tokens")),
    Alias("request_generation_tokens", ("request_generation_tokens", "vllm:request_generation_tokens")),
    Alias(
        "finished_sequences",
        ("request_finish", "vllm:request_success"),
        labels=MappingProxyType({"finish_reason": "finished_reason"}),
    ),
    Alias("requests", ("request_success",), where=MappingProxyType({"outcome": "success"})),
    Alias("requests", ("request_failure",), where=MappingProxyType({"outcome": "error"})),
)
"""Aliases of what this process counts."""

ASKED: Final = (
    ("engine_running_sequences", ("num_requests_running", "vllm:num_requests_running")),
    ("engine_queued_sequences", ("num_requests_waiting", "vllm:num_requests_waiting")),
    ("engine_max_sequences", ("num_request_max",)),
    (
        "engine_kv_cache_usage_ratio",
        ("gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ),
)
"""Aliases of what the engines tell: our name and the others. Sums over all engines, the ratio over their caches."""


def alias_families(own: Iterable[Metric], reports: Sequence[EngineReport], model: str) -> Iterator[Metric]:
    """Yield all aliases that have a value; each is labelled with ``model_name``.

    Args:
        own: families of this process, ``gemma4_nim_*``.
        reports: what the engines tell.
        model: the name that answers echo.
    """
    by_name = {metric.name: metric for metric in own}
    for alias in COUNTED:
        metric = by_name.get(PREFIX + alias.own)
        if metric is not None:
            yield from (_renamed(metric, name, alias, model) for name in alias.names)
    values = _asked(reports)
    for own_name, names in ASKED:
        value = values[own_name]
        if value is None:
            continue
        for name in names:
            gauge = GaugeMetricFamily(name, f"The same as {PREFIX}{own_name}", labels=("model_name",))
            gauge.add_metric((model,), value)
            yield gauge


def _asked(reports: Sequence[EngineReport]) -> dict[str, float | None]:
    used = sum_of(reports, lambda report: report.counts.get("kv_tokens_used"))
    places = sum_of(reports, lambda report: report.counts.get("kv_tokens"))
    return {
        "engine_running_sequences": sum_of(reports, lambda report: report.counts.get("running")),
        "engine_queued_sequences": sum_of(reports, lambda report: report.counts.get("queued")),
        "engine_max_sequences": sum_of(
            reports, lambda report: None if report.limits is None else report.limits.max_sequences
        ),
        "engine_kv_cache_usage_ratio": used / places if used is not None and places else None,
    }


def _renamed(metric: Metric, name: str, alias: Alias, model: str) -> Metric:
    """Return a family under another name, added up over the labels that it does not have there."""
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in metric.samples:
        if any(sample.labels.get(label) != value for label, value in alias.where.items()):
            continue
        labels = {there: sample.labels[label] for label, there in alias.labels.items()}
        if "finished_reason" in labels:
            labels["finished_reason"] = _STOP.get(labels["finished_reason"], labels["finished_reason"])
        if "le" in sample.labels:
            labels["le"] = sample.labels["le"]
        key = (sample.name.removeprefix(metric.name), (("model_name", model), *labels.items()))
        sums[key] = sums.get(key, 0.0) + sample.value
    renamed = Metric(name, f"The same as {metric.name}", metric.type)
    for (suffix, labels_), value in sums.items():
        renamed.add_sample(name + suffix, dict(labels_), value)
    return renamed
