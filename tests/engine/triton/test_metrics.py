"""The engine's figures among Triton's metrics, with a stand-in for the module that only Triton's process has."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import ClassVar

import pytest

from engine.core import EngineStats
from engine.triton.metrics import Metrics


class Family:
    """A family with its only metric."""

    GAUGE, COUNTER = "gauge", "counter"
    made: ClassVar[dict[str, Family]] = {}

    def __init__(self, name, description, kind):
        assert description
        self.kind = kind
        self.value = 0
        self.made[name] = self

    def Metric(self, labels):  # noqa: N802 - Triton's name
        assert labels == {"model": "gemma4"}
        return self

    def set(self, value):
        assert self.kind == self.GAUGE
        self.value = value

    def increment(self, value):
        # With a negative value the real one aborts the server, later.
        assert self.kind == self.COUNTER
        assert value > 0
        self.value += value


@pytest.fixture
def families():
    Family.made = {}
    return Family.made


def test_gauges_are_set_and_counters_grow(families):
    """Both follow the engine; what has not changed is not sent."""
    metrics = Metrics(SimpleNamespace(MetricFamily=Family))
    first = EngineStats(3, 1, 10, 100, 20, 50)
    metrics.update(first, 7)
    metrics.update(dataclasses.replace(first, running=0, completion_tokens_total=80), 9)
    found = {name: family.value for name, family in families.items()}
    assert found["gemma4_running_sequences"] == 0
    assert found["gemma4_queued_sequences"] == 1
    assert found["gemma4_completion_tokens_total"] == 80
    assert found["gemma4_responses_total"] == 9


def test_a_counter_that_falls_is_never_decremented(families):
    """A core that counts anew is followed from there: Triton's counters cannot fall."""
    metrics = Metrics(SimpleNamespace(MetricFamily=Family))
    for requests in (10, 2, 5):
        metrics.update(EngineStats(0, 0, requests, 0, 0, 0), 0)
    assert families["gemma4_requests_total"].value == 13


def test_what_the_core_cannot_tell_is_absent(families):
    """A family is there from its first value on, also if that is 0."""
    metrics = Metrics(SimpleNamespace(MetricFamily=Family))
    metrics.update(EngineStats(0, 0, 0, 0, 0, 0), 0)
    assert "gemma4_running_sequences" in families
    assert "gemma4_kv_cache_tokens" not in families

    metrics.update(EngineStats(0, 0, 0, 0, 0, 0, kv_tokens=100, kv_tokens_used=0), 0)
    assert families["gemma4_kv_cache_tokens"].value == 100
    assert families["gemma4_kv_cache_used_tokens"].value == 0
