"""Makes a trace of a finished record and sends it to an OpenTelemetry collector over OTLP/HTTP, in a thread beside.

Nothing happens while a request runs: its spans are written when it has ended, with the times that its record has. A
trace holds names, counts and times; never a prompt, an answer, a picture's address or a header. Imported only when
traces are asked for; ``OTEL_*`` variables that this server has no name for are read by the library itself.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from api.telemetry.families import DIALECTS
from api.telemetry.record import Picture, RequestRecord
from api.telemetry.trace_options import TraceOptions

PRODUCT: Final = "gemma4-nim"
FLUSH_S: Final = 3.0
"""How long the end of the process may be held up by traces that are still to be sent."""
_UNTRACED: Final = ("/v1/health/", "/metrics", "/v1/metrics")
_HEADERS: Final = (b"traceparent", b"tracestate")
_OPERATIONS: Final = {"completions": "text_completion"}
"""Dialect -> what the conventions call its operation, where that is not ``chat``."""
_NANOSECONDS: Final = 1_000_000_000

Attributes = Mapping[str, AttributeValue]


class RequestTracer:
    """Writes one trace per request."""

    def __init__(self, options: TraceOptions) -> None:
        """Start the thread that sends; nothing is sent yet."""
        self._provider = TracerProvider(resource=_resource(options), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(options)))
        self._tracer = self._provider.get_tracer(PRODUCT, options.version)
        self._propagator = TraceContextTextMapPropagator()

    def trace(self, record: RequestRecord, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Write the trace of a finished request and return its id; empty for one that is not traced.

        Args:
            record: what is known of the request.
            headers: of the request; ``traceparent`` and ``tracestate`` make the trace part of the caller's.
        """
        if record.route.startswith(_UNTRACED):
            return ""
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _HEADERS}
        clock = _Clock(record)
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=self._propagator.extract(carrier, context=Context()),
            kind=SpanKind.SERVER,
            start_time=record.started_ns,
            attributes={
                "http.request.method": record.method,
                "http.route": record.route,
                "http.response.status_code": record.status,
                "gemma4_nim.request_id": record.request_id,
            },
        )
        if record.error_code:
            span.set_attribute("error.type", record.error_code)
        if record.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        is_sampled = span.is_recording()
        if record.route in DIALECTS and record.prepared_from is not None and is_sampled:
            self._inference(record, span, clock)
        span.end(clock.now)
        return format_trace_id(span.get_span_context().trace_id) if is_sampled else ""

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and end the thread."""
        # Beside, because a collector that does not answer may hold it up for longer.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(FLUSH_S)

    def _inference(self, record: RequestRecord, parent: Span, clock: _Clock) -> None:
        """Write the span of the model's work, in the words of the conventions for generative AI, and its parts."""
        operation = _OPERATIONS.get(DIALECTS[record.route], "chat")
        span = self._child(parent, f"{operation} {record.model}", clock.at(record.prepared_from))
        span.set_attributes(
            {"gen_ai.operation.name": operation, "gemma4_nim.outcome": record.outcome, **_usage(record)}
        )
        if record.outcome == "error":
            span.set_attribute("error.type", record.error_code)
            span.set_status(Status(StatusCode.ERROR))
        for picture in record.pictures:
            self._picture(span, picture, clock)
        parts = (
            ("media", record.prepared_from, record.pictures_done, bool(record.pictures)),
            ("render", record.pictures_done, record.rendered, True),
            ("engine.wait", record.submitted, record.first_token, True),
            ("engine.generate", record.first_token, record.ended, True),
        )
        for name, start, end, is_there in parts:
            if is_there and start is not None and end is not None:
                self._child(span, name, clock.at(start)).end(clock.at(end))
        span.end(clock.at(record.ended) if record.ended is not None else clock.now)

    def _picture(self, parent: Span, picture: Picture, clock: _Clock) -> None:
        spent = (picture.fetch_s or 0.0) + (picture.decode_s or 0.0)
        span = self._child(parent, "media.image", clock.at(picture.started))
        span.set_attributes(
            {"gemma4_nim.image.source": picture.source, "gemma4_nim.image.outcome": picture.outcome}
            | ({} if picture.fetch_s is None else {"gemma4_nim.image.read_seconds": picture.fetch_s})
            | ({} if picture.decode_s is None else {"gemma4_nim.image.decode_seconds": picture.decode_s})
        )
        span.end(clock.at(picture.started + spent))

    def _child(self, parent: Span, name: str, start: int) -> Span:
        return self._tracer.start_span(name, context=set_span_in_context(parent, Context()), start_time=start)


class _Clock:
    """Turns the moments of a record into Unix nanoseconds."""

    def __init__(self, record: RequestRecord) -> None:
        self._record = record
        self.now = self.at(record.closed)

    def at(self, moment: float | None) -> int:
        """Return a moment; the start of the request for one that never came."""
        passed = 0.0 if moment is None else moment - self._record.started
        return self._record.started_ns + int(passed * _NANOSECONDS)


def _usage(record: RequestRecord) -> Attributes:
    """Return the attributes of the conventions for generative AI, those that are known."""
    attributes: dict[str, AttributeValue] = {"gen_ai.provider.name": PRODUCT, "gen_ai.request.model": record.model}
    if record.first_token is not None:
        attributes |= {
            "gen_ai.response.model": record.model,
            "gen_ai.response.finish_reasons": record.finish_reasons,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
            "gen_ai.response.time_to_first_chunk": record.first_token - record.started,
        }
        if record.cached_tokens is not None:
            attributes["gen_ai.usage.cache_read.input_tokens"] = record.cached_tokens
    if record.choices > 1:
        attributes["gen_ai.request.choice.count"] = record.choices
    if record.max_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = record.max_tokens
    if record.temperature is not None:
        attributes["gen_ai.request.temperature"] = record.temperature
    return attributes


def _exporter(options: TraceOptions) -> SpanExporter:
    if options.exporter == "console":
        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: f"{span.to_json(indent=None)}\n")
    return OTLPSpanExporter(endpoint=None if options.endpoint is None else f"{options.endpoint}/v1/traces")


def _resource(options: TraceOptions) -> Resource:
    given = {} if options.service_name is None else {SERVICE_NAME: options.service_name}
    resource = Resource.create({SERVICE_VERSION: options.version, **given})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: PRODUCT}))
    return resource
