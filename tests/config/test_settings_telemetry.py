"""Settings of traces and API processes: what is accepted, and how a mistake is named."""

from __future__ import annotations

import pytest

from config.environment import load_settings
from config.errors import ConfigError


def test_address_of_the_collector_loses_its_last_slash() -> None:
    """The path of traces is put behind it."""
    loaded = load_settings(environ={"NIM_OTEL_EXPORTER_OTLP_ENDPOINT": "https://otel.example:4318/base/"})
    assert loaded.settings.telemetry.otlp_endpoint == "https://otel.example:4318/base"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NIM_OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http://host:4318"),
        ("NIM_OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:key@collector:4318", "http://host:4318"),
        ("NIM_OTEL_TRACES_EXPORTER", "zipkin", "otlp"),
        ("NIM_API_WORKERS", "0", "1"),
        ("NIM_API_WORKERS", "65", "64"),
    ],
)
def test_mistakes_are_named(name: str, value: str, said: str) -> None:
    """The line has the variable and what to write instead."""
    with pytest.raises(ConfigError) as refused:
        load_settings(environ={name: value})
    (problem,) = refused.value.problems
    assert name in problem
    assert said in problem


def test_names_of_1x_switch_traces_on() -> None:
    """What charts for NIM 1.x set is understood without a warning; metrics are not pushed, and it says so."""
    environ = {
        "NIM_ENABLE_OTEL": "1",
        "NIM_OTEL_SERVICE_NAME": "gemma",
        "NIM_OTEL_TRACES_EXPORTER": "OTLP",
        "NIM_OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel-collector:4318",
    }
    loaded = load_settings(environ=environ)
    assert loaded.settings.telemetry.enable_otel
    assert loaded.settings.telemetry.traces_exporter == "otlp"
    assert loaded.warnings == ()

    (warning,) = load_settings(environ={"NIM_OTEL_METRICS_EXPORTER": "otlp"}).warnings
    assert "/metrics" in warning
