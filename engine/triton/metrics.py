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
    "kv_tokens": ("gemma4_kv_cache_tokens", "Places for tokens in the KV cache"),
    "kv_tokens_used": ("gemma4_kv_cache_used_tokens", "Of these, places that running sequences have filled"),
}
COUNTERS = {
    "requests_total": ("gemma4_requests_total", "Sequences asked for"),
    "prompt_tokens_total": ("gemma4_prompt_tokens_total", "Tokens of prompts"),
    "cached_tokens_total": ("gemma4_cached_tokens_total", "Tokens of prompts found in the prefix cache"),
    "completion_tokens_total": ("gemma4_completion_tokens_total", "Tokens drawn"),
    "started_total": ("gemma4_started_sequences_total", "Sequences that have left the queue"),
    "queue_us_total": ("gemma4_queue_microseconds_total", "Microseconds that these spent in the queue"),
    "grammars_total": ("gemma4_grammars_total", "Grammars compiled"),
    "grammar_us_total": ("gemma4_grammar_microseconds_total", "Microseconds that these took"),
    "images_total": ("gemma4_images_total", "Pictures encoded by the vision tower"),
    "image_us_total": ("gemma4_image_microseconds_total", "Microseconds that these took"),
    "preemptions_total": ("gemma4_preemptions_total", "Running sequences that had to give up their KV cache and wait"),
    "responses_total": ("gemma4_responses_total", "Responses sent; one may hold several tokens"),
}


class Metrics:
    """The families, and what they said last."""

    def __init__(self, backend: Any) -> None:
        """Remember where to register; ``backend`` is the module ``triton_python_backend_utils``."""
        self._backend = backend
        self._metrics: dict[str, Any] = {}
        self._families: list[Any] = []
        """Triton forgets a family that nobody holds."""
        self._last: dict[str, int] = {}

    def update(self, stats: EngineStats, responses: int) -> None:
        """Bring the metrics up to date; each that has changed is one call to the server."""
        values = {**encode_stats(stats), "responses_total": responses}
        for key, value in values.items():
            if key not in self._metrics:
                self._register(key)
            change = value - self._last.get(key, 0)
            if change and key in GAUGES:
                self._metrics[key].set(value)
            elif change > 0:
                # Never a negative one: what Triton 2.51 does when it refuses one damages its memory, and it aborts
                # some requests later.
                self._metrics[key].increment(change)
        self._last = values

    def _register(self, key: str) -> None:
        """Register a family when its first value comes: what the core cannot tell is absent, not 0."""
        kinds = self._backend.MetricFamily
        name, description = GAUGES[key] if key in GAUGES else COUNTERS[key]
        kind = kinds.GAUGE if key in GAUGES else kinds.COUNTER
        family = kinds(name=name, description=description, kind=kind)
        self._families.append(family)
        self._metrics[key] = family.Metric(labels={"model": MODEL_NAME})
