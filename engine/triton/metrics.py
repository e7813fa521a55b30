"""The engine's counters and gauges among Triton's own metrics, up to a second old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.triton.protocol import MODEL_NAME
from engine.wire import encode_stats

if TYPE_CHECKING:
    from typing import Any

    from engine.core import EngineStats

GAUGES = {
    "running": ("gemma4_running_sequences", "Sequences that are being generated"),
    "queued": ("gemma4_queued_sequences", "Sequences that wait for a place"),
}
COUNTERS = {
    "requests_total": ("gemma4_requests_total", "Sequences asked for"),
    "prompt_tokens_total": ("gemma4_prompt_tokens_total", "Tokens of prompts"),
    "cached_tokens_total": ("gemma4_cached_tokens_total", "Tokens of prompts found in the prefix cache"),
    "completion_tokens_total": ("gemma4_completion_tokens_total", "Tokens drawn"),
    "responses_total": ("gemma4_responses_total", "Responses sent; one may hold several tokens"),
}


class Metrics:
    """The families, and what they said last."""

    def __init__(self, backend: Any) -> None:
        """Register the families; ``backend`` is the module ``triton_python_backend_utils``."""
        self._metrics: dict[str, Any] = {}
        self._families = []
        """Triton forgets a family that nobody holds."""
        self._last: dict[str, int] = {}
        for table, kind in ((GAUGES, backend.MetricFamily.GAUGE), (COUNTERS, backend.MetricFamily.COUNTER)):
            for key, (name, description) in table.items():
                family = backend.MetricFamily(name=name, description=description, kind=kind)
                self._families.append(family)
                self._metrics[key] = family.Metric(labels={"model": MODEL_NAME})

    def update(self, stats: EngineStats, responses: int) -> None:
        """Bring the metrics up to date; each that has changed is one call to the server."""
        values = {**encode_stats(stats), "responses_total": responses}
        for key, value in values.items():
            change = value - self._last.get(key, 0)
            if change and key in GAUGES:
                self._metrics[key].set(value)
            elif change:
                self._metrics[key].increment(change)
        self._last = values
