"""The tracer's life beside the application's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from api.telemetry.trace_options import TraceOptions

if TYPE_CHECKING:
    from api.telemetry.tracing import RequestTracer


@contextmanager
def tracing(app: FastAPI, options: TraceOptions | None) -> Iterator[None]:
    """Let requests be traced while the block lasts, unless there are no options; at its end the last ones are sent."""
    tracer = None if options is None else _tracer(options)
    app.state.tracer = tracer
    try:
        yield
    finally:
        if tracer is not None:
            tracer.close()


def _tracer(options: TraceOptions) -> RequestTracer:
    # Loaded only where it is asked for: it takes a tenth of a second.
    from api.telemetry.tracing import RequestTracer  # noqa: PLC0415

    return RequestTracer(options)
