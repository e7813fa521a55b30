"""Where traces go. Beside the tracer, so that nothing of OpenTelemetry is loaded where no traces are asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """Where traces go.

    Attributes:
        exporter: ``otlp`` or ``console``.
        endpoint: the collector's address without ``/v1/traces``; None leaves it to ``OTEL_*`` variables.
        service_name: None leaves it to ``OTEL_SERVICE_NAME``.
        version: of this server.
    """

    exporter: str
    endpoint: str | None
    service_name: str | None
    version: str
