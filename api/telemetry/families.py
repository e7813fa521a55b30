"""The metric families that this process counts itself, and how a finished record is counted.

Several API processes count in files of one folder, where the launcher has set ``PROMETHEUS_MULTIPROC_DIR``; each of
them can tell the sums, which outlive a process that is started again. ``docs/operations.md`` lists all names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from api.telemetry.record import Picture, RequestRecord
from api.telemetry.slots import count_in, take_slot
from config.environment import metrics_folder

PREFIX: Final = "gemma4_nim_"
DIALECTS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}
"""Routes that generate -> the name of their dialect."""

_INF: Final = float("inf")
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, _INF)
_LATENCIES: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0), _INF,
)  # fmt: skip
_STEPS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0),
    _INF,
)

disable_created_metrics()  # type: ignore[no-untyped-call] # the library's has no types
_FOLDER: Final = metrics_folder()
if _FOLDER is not None:
    count_in(take_slot(_FOLDER))
REGISTRY: Final = CollectorRegistry()


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(PREFIX + name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=REGISTRY)


_HTTP_REQUESTS: Final = _counter("http_requests", "HTTP requests that were answered", "route", "method", "status")
_HTTP_DURATION: Final = _histogram(
    "http_request_duration_seconds", "From a request's head to the end of its answer", _LATENCIES, "route"
)
_IN_FLIGHT: Final = Gauge(
    PREFIX + "http_requests_in_flight",
    "HTTP requests that are being answered",
    registry=REGISTRY,
    multiprocess_mode="sum",
)
# Nothing is in flight yet; a process that has crashed may have left something.
_IN_FLIGHT.set(0)
_REQUESTS: Final = _counter(
    "requests", "Requests for an answer that have ended; code is that of the error body", "dialect", "outcome", "code"
)
_FINISHED: Final = _counter("finished_sequences", "Choices that have ended by themselves", "dialect", "finish_reason")
_PROMPT_TOKENS: Final = _counter("prompt_tokens", "Tokens of prompts that the engine took, image places included")
_CACHED_TOKENS: Final = _counter("cached_prompt_tokens", "Of these, tokens found in the prefix cache")
_IMAGE_TOKENS: Final = _counter("image_tokens", "Of the prompt tokens, places of pictures")
_GENERATED_TOKENS: Final = _counter("generation_tokens", "Tokens generated, thoughts included")
_REASONING_TOKENS: Final = _counter("reasoning_tokens", "Of these, tokens of thoughts")
_FIRST_TOKEN: Final = _histogram(
    "time_to_first_token_seconds", "From a request's head to the first token of every choice", _LATENCIES
)
_DURATION: Final = _histogram("request_duration_seconds", "From a request's head to the end of its answer", _LATENCIES)
_GENERATION: Final = _histogram("request_generation_seconds", "From the first token to the last one", _LATENCIES)
_PREPARATION: Final = _histogram(
    "request_preparation_seconds", "From a request's head to its hand-over to the engine, pictures included", _LATENCIES
)
_PER_TOKEN: Final = _histogram(
    "request_time_per_output_token_seconds", "A request's time between tokens, on average", _STEPS
)
_REQUEST_PROMPT: Final = _histogram("request_prompt_tokens", "Tokens of the prompt", _TOKENS)
_REQUEST_GENERATED: Final = _histogram("request_generation_tokens", "Tokens generated for a request", _TOKENS)
_IMAGES: Final = _counter("images", "Pictures in requests", "source", "outcome")
_FETCH: Final = _histogram("image_fetch_seconds", "Fetching a picture by URL", _LATENCIES)
_DECODE: Final = _histogram("image_decode_seconds", "Decoding a picture, the wait for a decoder included", _LATENCIES)

# Intervals between tokens: every token counts with the average of its request, so count and sum are exact and a token
# costs nothing. A histogram of the library takes one observation at a time, so these are its parts.
INTERVALS: Final = PREFIX + "inter_token_intervals"
INTERVAL_SUM: Final = PREFIX + "inter_token_interval_sum_seconds"
_INTERVALS: Final = Counter(INTERVALS, "Intervals by upper bound", ("le",), registry=REGISTRY)
_INTERVAL_SUM: Final = Counter(INTERVAL_SUM, "Sum of the intervals", registry=REGISTRY)
_INTERVAL_COUNTS: Final = tuple(_INTERVALS.labels(str(bound)) for bound in _STEPS)
INTERVAL_BOUNDS: Final = tuple(str(bound) for bound in _STEPS)


# So that a rate can be told from the first request on: what has never been counted has no series.
for _reason in ("stop", "length", "tool_calls"):
    _FINISHED.labels("chat", _reason)
_REQUESTS.labels("chat", "success", "")


class RequestCount:
    """Counts requests in flight while a block lasts."""

    def __enter__(self) -> None:
        """Count one more."""
        _IN_FLIGHT.inc()

    def __exit__(self, *_: object) -> None:
        """Count one less."""
        _IN_FLIGHT.dec()


def observe(record: RequestRecord) -> None:
    """Count a request whose answer has ended."""
    _HTTP_REQUESTS.labels(record.route, record.method, record.status).inc()
    _HTTP_DURATION.labels(record.route).observe(record.closed - record.started)
    dialect = DIALECTS.get(record.route)
    if dialect is None or record.method != "POST":
        return
    _REQUESTS.labels(dialect, record.outcome, record.error_code).inc()
    for picture in record.pictures:
        _observe_picture(picture)
    if record.submitted is not None:
        _PREPARATION.observe(record.submitted - record.started)
    if record.first_token is not None:
        _observe_generation(record, dialect, record.first_token)


def count_progress(records: Iterable[RequestRecord]) -> None:
    """Count what running answers have generated by now, so that rates are true while long ones run."""
    for record in records:
        if record.generated is not None:
            _count_generated(record, record.generated())


def _count_generated(record: RequestRecord, tokens: int) -> None:
    if tokens > record.counted_tokens:
        _GENERATED_TOKENS.inc(tokens - record.counted_tokens)
        record.counted_tokens = tokens


def _observe_picture(picture: Picture) -> None:
    _IMAGES.labels(picture.source, picture.outcome).inc()
    if picture.fetch_s is not None and picture.source == "url":
        _FETCH.observe(picture.fetch_s)
    if picture.decode_s is not None:
        _DECODE.observe(picture.decode_s)


def _observe_generation(record: RequestRecord, dialect: str, first_token: float) -> None:
    _FIRST_TOKEN.observe(first_token - record.started)
    for reason in record.finish_reasons:
        _FINISHED.labels(dialect, reason).inc()
    for counter, tokens in (
        (_PROMPT_TOKENS, record.prompt_tokens),
        (_CACHED_TOKENS, record.cached_tokens),
        (_IMAGE_TOKENS, record.image_tokens),
        (_REASONING_TOKENS, record.reasoning_tokens),
    ):
        if tokens:
            counter.inc(tokens)
    _count_generated(record, record.completion_tokens)
    ended = record.ended
    if record.outcome != "success" or ended is None:
        return
    _DURATION.observe(ended - record.started)
    _GENERATION.observe(ended - first_token)
    _REQUEST_PROMPT.observe(record.prompt_tokens)
    _REQUEST_GENERATED.observe(record.completion_tokens)
    intervals = record.completion_tokens - record.choices
    if intervals > 0:
        # Choices of one request run side by side, each for about the same time.
        average = (ended - first_token) * record.choices / intervals
        _PER_TOKEN.observe(average)
        _INTERVAL_COUNTS[bisect_left(_STEPS, average)].inc(intervals)
        _INTERVAL_SUM.inc(average * intervals)
