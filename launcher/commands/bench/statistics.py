"""Turns samples into figures: rates of the whole, and the distribution of each latency. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from launcher.commands.bench.stream_request import Sample

PERCENTILES: Final = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Seconds of one latency over all requests or gaps."""

    mean: float
    smallest: float
    largest: float
    percentiles: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """One level of load.

    Attributes:
        seconds: from the first request sent to the last answer ended.
        ttft: seconds from a request to its first text.
        token_time: seconds per token after the first, one figure per request.
        gaps: seconds between two messages of one stream; several tokens may share a message.
        request_time: seconds from a request to the end of its answer.
        errors: why answers are missing -> how many.
    """

    concurrency: int
    rate: float | None
    completed: int
    errors: Mapping[str, int]
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft: Distribution | None
    token_time: Distribution | None
    gaps: Distribution | None
    request_time: Distribution | None

    @property
    def output_rate(self) -> float:
        """Return generated tokens per second, of all requests together."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0

    @property
    def total_rate(self) -> float:
        """Return tokens per second, prompts included."""
        return (self.prompt_tokens + self.completion_tokens) / self.seconds if self.seconds else 0.0

    @property
    def request_rate(self) -> float:
        """Return completed requests per second."""
        return self.completed / self.seconds if self.seconds else 0.0

    def record(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        known = asdict(self)
        rates = {
            "requests_per_second": self.request_rate,
            "output_tokens_per_second": self.output_rate,
            "total_tokens_per_second": self.total_rate,
        }
        return known | rates


def summarise(samples: Sequence[Sample], concurrency: int, rate: float | None = None) -> Figures:
    """Return the figures of one level; failed requests count as errors and in nothing else."""
    good = [sample for sample in samples if not sample.error]
    streams = [sample.arrivals for sample in good]
    return Figures(
        concurrency=concurrency,
        rate=rate,
        completed=len(good),
        errors=dict(Counter(sample.error for sample in samples if sample.error)),
        seconds=max(sample.ended for sample in good) - min(sample.sent for sample in good) if good else 0.0,
        prompt_tokens=sum(sample.prompt_tokens for sample in good),
        cached_tokens=sum(sample.cached_tokens for sample in good),
        completion_tokens=sum(sample.completion_tokens for sample in good),
        ttft=distribution([sample.arrivals[0] - sample.sent for sample in good if sample.arrivals]),
        token_time=distribution([each for sample in good if (each := _token_time(sample)) is not None]),
        gaps=distribution([later - one for times in streams for one, later in pairwise(times)]),
        request_time=distribution([sample.ended - sample.sent for sample in good]),
    )


def distribution(values: Sequence[float]) -> Distribution | None:
    """Return mean, extremes and percentiles; None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    return Distribution(
        mean=math.fsum(ordered) / len(ordered),
        smallest=ordered[0],
        largest=ordered[-1],
        percentiles={share: percentile(ordered, share) for share in PERCENTILES},
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` per cent of sorted values lie, between neighbours by proportion."""
    place = (len(ordered) - 1) * share / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _token_time(sample: Sample) -> float | None:
    if sample.completion_tokens < 2 or len(sample.arrivals) < 2:  # noqa: PLR2004 - one token has no gap
        return None
    return (sample.arrivals[-1] - sample.arrivals[0]) / (sample.completion_tokens - 1)
