"""Puts all metrics together and writes them as Prometheus reads them: text 0.0.4, or OpenMetrics where asked for."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.telemetry.aliases import alias_families
from api.telemetry.engine_families import engine_families
from api.telemetry.families import INTERVAL_BOUNDS, INTERVAL_SUM, INTERVALS, PREFIX, REGISTRY
from engine.core import EngineReport

INTER_TOKEN: Final = PREFIX + "inter_token_latency_seconds"
PROCESSES: Final = ("api", "engine")
"""What the launcher starts again after a crash."""
_PARTS: Final = frozenset({INTERVALS, INTERVAL_SUM})


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known at the moment of reading, besides what this process counts.

    Attributes:
        model: the name that answers echo.
        version: of this server.
        profile_id: of the manifest; empty for a model of the user's own.
        reports: what the engines tell of themselves.
        status: what the launcher last wrote: ``phase`` and ``restarts``; empty when there is no launcher.
    """

    model: str
    version: str
    profile_id: str = ""
    reports: Sequence[EngineReport] = ()
    status: Mapping[str, Any] = field(default_factory=dict)


class _Page(Collector):
    """Everything on the page, in the form that the library's writers take."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """Return all families."""
        return self._families


def exposition(scene: Scene, accept: str) -> tuple[bytes, str]:
    """Return the page and its content type, as the ``Accept`` header asks."""
    own = list(_own_families())
    families = [
        *own,
        *_server_families(scene),
        *engine_families(scene.reports),
        *alias_families(own, scene.reports, scene.model),
    ]
    page = _Page([family for family in families if family.samples])
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):
        # A version that is no number.
        encode, content_type = choose_encoder("")
    return encode(page), content_type


def _own_families() -> Iterator[Metric]:
    """Yield what the API processes have counted: all of them where the launcher lets them share a folder."""
    parts: dict[str, Metric] = {}
    for metric in _collected():
        if metric.name in _PARTS:
            parts[metric.name] = metric
        else:
            yield metric
    if len(parts) == len(_PARTS):
        yield _intervals(parts)


def _collected() -> Iterable[Metric]:
    try:
        shared: Collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call] # the library's has no types
    except ValueError:
        return REGISTRY.collect()
    try:
        families = shared.collect()
    except struct.error:
        # Another process was just creating its file.
        families = shared.collect()
    return families


def _intervals(parts: Mapping[str, Metric]) -> Metric:
    """Return the histogram that the two counters make."""
    counts = {sample.labels["le"]: sample.value for sample in parts[INTERVALS].samples}
    buckets: list[tuple[str, float]] = []
    so_far = 0.0
    for bound in INTERVAL_BOUNDS:
        so_far += counts.get(bound, 0.0)
        buckets.append(("+Inf" if bound == "inf" else bound, so_far))
    total = sum(sample.value for sample in parts[INTERVAL_SUM].samples)
    text = "Time between tokens; each counts with the average of its request"
    return HistogramMetricFamily(INTER_TOKEN, text, buckets=buckets, sum_value=total)


def _server_families(scene: Scene) -> Iterator[Metric]:
    report = next((report for report in scene.reports if report.limits is not None), None)
    core = report.limits.core if report is not None and report.limits is not None else ""
    facts = {"version": scene.version, "model_name": scene.model, "profile": scene.profile_id, "core": core}
    yield InfoMetricFamily(PREFIX + "server", "What is served here, and by which engine", value=facts)
    phase = scene.status.get("phase")
    if isinstance(phase, str):
        gauge = GaugeMetricFamily(PREFIX + "phase", "1 for the phase that the launcher is in", labels=("phase",))
        gauge.add_metric((phase,), 1)
        yield gauge
        restarts = scene.status.get("restarts", {})
        counter = CounterMetricFamily(PREFIX + "process_restarts", "Processes started again", labels=("process",))
        for process in PROCESSES:
            counter.add_metric((process,), float(restarts.get(process, 0)))
        yield counter
