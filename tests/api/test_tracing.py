"""Traces as an OpenTelemetry collector gets them: one per request, with times and counts and nothing that was said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from engine.errors import EngineError
from tests.api.conftest import MODEL, ScriptedServer, start_scripted_server
from tests.fakes.otlp_collector import OtlpCollector, Span
from tests.fakes.pictures import data_url, plain
from tests.fakes.processes import free_port, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e{:04x}"
CALLER = "00f067aa0ba902b7"
REQUEST = "POST /v1/chat/completions"
WORK = f"chat {MODEL}"
ASK: list[Any] = [{"role": "user", "content": "verysecretquestion"}]


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpCollector]:
    """Return a collector that listens."""
    with OtlpCollector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(collector: OtlpCollector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """Start a server that sends its traces to the collector, soon after each request."""
    variables = {
        "NIM_ENABLE_OTEL": "1",
        "NIM_OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint + "/",
        "OTEL_SERVICE_NAME": "gemma-in-test",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=models",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    with start_scripted_server(tmp_path_factory.mktemp("traced"), variables) as server:
        yield server


def _post(server: ScriptedServer, number: int, flags: str = "01", **body: Any) -> requests.Response:
    """Ask as part of a trace of the caller's, whose id ends with ``number``."""
    parent = f"00-{TRACE.format(number)}-{CALLER}-{flags}"
    return server.post({"messages": ASK, **body}, headers={"traceparent": parent, "x-request-id": f"request-{number}"})


def _trace(collector: OtlpCollector, number: int, *names: str) -> dict[str, Span]:
    """Wait until the spans of these names, and that of the request, have arrived in a trace; return all of it."""
    wanted = {REQUEST, *names}
    wait_until(lambda: wanted <= collector.trace(TRACE.format(number)).keys(), what=f"the spans {wanted}")
    return collector.trace(TRACE.format(number))


@pytest.mark.parametrize("stream", [False, True])
def test_request_is_a_trace_of_the_caller_s(traced: ScriptedServer, collector: OtlpCollector, *, stream: bool) -> None:
    """The request's span continues the caller's; the model's work is in it, and its parts follow each other."""
    traced.reply("verysecretanswer<turn|>")
    before = time.time_ns()
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    assert _post(traced, 1 + stream, stream=stream, temperature=0.5, max_tokens=77, **usage).status_code == 200
    after = time.time_ns()
    parts = ("render", "engine.wait", "engine.generate")
    trace = _trace(collector, 1 + stream, WORK, *parts)
    request, work = trace[REQUEST], trace[WORK]

    assert request.parent_id == CALLER
    assert work.parent_id == request.span_id
    assert {trace[name].parent_id for name in parts} == {work.span_id}
    # The moments of a record are of another clock than its start: a millisecond is theirs.
    slack = 1_000_000
    moments = [
        request.start,
        work.start,
        *(m for name in parts for m in (trace[name].start, trace[name].end)),
        work.end,
    ]
    assert all(earlier <= later + slack for earlier, later in zip(moments, [*moments[1:], request.end], strict=True))
    assert before - slack <= request.start
    assert request.end <= after + 10**9 * 30
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["gemma4_nim.request_id"] == f"request-{1 + stream}"
    assert work.attributes["gen_ai.operation.name"] == "chat"
    assert work.attributes["gen_ai.request.model"] == work.attributes["gen_ai.response.model"] == MODEL
    assert work.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert work.attributes["gen_ai.usage.output_tokens"] == len(
        traced.tokenizer.encode_marked("verysecretanswer<turn|>")
    )
    assert work.attributes["gen_ai.usage.input_tokens"] == len(traced.core.requests[-1].prompt_ids)
    assert work.attributes["gen_ai.request.temperature"] == 0.5
    assert work.attributes["gen_ai.request.max_tokens"] == 77
    assert request.service == "gemma-in-test"


def test_nothing_that_was_said_is_sent(traced: ScriptedServer, collector: OtlpCollector) -> None:
    """The bytes that the collector gets hold no prompt and no answer; they go where and how they were told to."""
    # A server of another test, with other headers, may have sent something before.
    before = len(collector.headers)
    traced.reply("verysecretanswer<turn|>")
    _post(traced, 3)
    _trace(collector, 3, WORK)

    assert not any(b"verysecret" in body for body in collector.bodies)
    assert set(collector.paths) == {"/v1/traces"}
    assert {headers["x-team"] for headers in collector.headers[before:]} == {"models"}


def test_failure_is_an_error_with_its_code(traced: ScriptedServer, collector: OtlpCollector) -> None:
    """A fault of the server marks its spans; a fault of the caller is no error of the server's."""
    traced.core.script = lambda _request: [EngineError("verysecretdetail")]
    assert _post(traced, 4).status_code == 500
    failed = _trace(collector, 4, WORK)
    assert failed[REQUEST].is_error
    assert failed[REQUEST].attributes["error.type"] == failed[WORK].attributes["error.type"] == "engine_error"
    assert "engine.generate" not in failed

    assert _post(traced, 5, foo=1).status_code == 400
    refused = _trace(collector, 5)
    assert not refused[REQUEST].is_error
    assert refused[REQUEST].attributes["error.type"] == "unknown_field"
    assert WORK not in refused


def test_pictures_have_spans_of_their_own(traced: ScriptedServer, collector: OtlpCollector) -> None:
    """Each picture tells its kind and what became of it."""
    traced.reply("A square<turn|>")
    part = {"type": "image_url", "image_url": {"url": data_url(plain())}}
    _post(traced, 6, messages=[{"role": "user", "content": [part]}])
    trace = _trace(collector, 6, WORK, "media", "media.image")

    assert trace["media.image"].attributes["gemma4_nim.image.source"] == "inline"
    assert trace["media.image"].attributes["gemma4_nim.image.outcome"] == "used"
    assert trace["media.image"].attributes["gemma4_nim.image.decode_seconds"] > 0


def test_what_the_caller_does_not_sample_is_not_sent(traced: ScriptedServer, collector: OtlpCollector) -> None:
    """A caller that does not record its trace gets none here; probes and scrapes never have one."""
    traced.reply("Hi<turn|>")
    _post(traced, 7, flags="00")
    for path in ("/v1/health/ready", "/metrics"):
        requests.get(traced.base_url + path, timeout=60)
    _post(traced, 8)
    _trace(collector, 8, WORK)

    assert not collector.trace(TRACE.format(7))
    assert not {span.name for span in collector.spans} & {"GET /v1/health/ready", "GET /metrics"}


def test_log_line_has_the_trace(traced: ScriptedServer) -> None:
    """The access log names the trace, so that one leads to the other."""
    _post(traced, 9)
    wanted = f"trace_id={TRACE.format(9)}"
    wait_until(lambda: wanted in traced.process.log(), what="the log line")


def test_last_traces_are_sent_at_the_stop(collector: OtlpCollector, tmp_path: Any) -> None:
    """A server that stops sends what waits; what the library does by itself would take a minute."""
    variables = {
        "NIM_ENABLE_OTEL": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
    }
    with start_scripted_server(tmp_path, variables) as server:
        _post(server, 10)
        assert not collector.trace(TRACE.format(10))
    assert _trace(collector, 10, WORK)[REQUEST].service == "gemma4-nim"


@pytest.mark.slow
def test_absent_collector_costs_nothing_but_traces(tmp_path: Any) -> None:
    """Requests are answered, and the stop is not held up for long."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    variables = {"NIM_ENABLE_OTEL": "1", "NIM_OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
    with start_scripted_server(tmp_path, variables) as server:
        for number in (11, 12):
            assert _post(server, number).status_code == 200
        process = server.process.process
    assert process is not None
    assert process.returncode == 0
