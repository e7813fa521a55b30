"""Settings of what operators see of the server: how many API processes there are, and traces for OpenTelemetry."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from config.settings_base import SettingsModel, read_lower, variable

TracesExporter = Literal["otlp", "console", "none"]

_ENDPOINT = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?\Z")


def _endpoint(value: str) -> str:
    if not _ENDPOINT.match(value):
        raise ValueError("write the collector's address as http://host:4318 or https://host:4318")
    return value.rstrip("/")


class ApiProcessSettings(SettingsModel):
    """The processes that speak HTTP."""

    workers: int = variable("NIM_API_WORKERS", 1, ge=1, le=64)
    """API processes that share the port. One serves thousands of tokens a second; more help when its core is full."""


class TelemetrySettings(SettingsModel):
    """Traces for OpenTelemetry, one for each request, without prompts and answers. Metrics need no setting."""

    enable_otel: bool = variable("NIM_ENABLE_OTEL", default=False)
    """Record a trace of each request. Variables of OpenTelemetry's own (``OTEL_*``) set everything else."""
    traces_exporter: Annotated[TracesExporter, BeforeValidator(read_lower)] = variable(
        "NIM_OTEL_TRACES_EXPORTER", "otlp"
    )
    """Where traces go: to a collector over OTLP/HTTP, to standard error (``console``), or nowhere."""
    otlp_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = variable("NIM_OTEL_EXPORTER_OTLP_ENDPOINT", None)
    """The collector's address; traces are posted to ``/v1/traces`` below it. Unset: ``OTEL_EXPORTER_OTLP_ENDPOINT``,
    else ``http://localhost:4318``."""
    service_name: Annotated[str, Field(min_length=1, max_length=255)] | None = variable("NIM_OTEL_SERVICE_NAME", None)
    """The name that traces carry as ``service.name``. Unset: ``OTEL_SERVICE_NAME``, else ``gemma4-nim``."""
