"""Alerts and dashboard: every query is PromQL, on metrics of the cluster's own exporters, for this release only."""

from __future__ import annotations

import json
import re
from typing import Any

import promql_parser
import pytest

from launcher.errors import ExitCode
from tests.helm.chart import CHART, Renderer, cases, only

CASES = cases()
METRIC = re.compile(r"\b(?:kube|kubelet|container|DCGM)_\w+(?=\{)")
EXPORTERS = ("kube_", "kubelet_", "container_", "DCGM_")


def _rules(renderer: Renderer, name: str) -> list[dict[str, Any]]:
    rule = only(renderer.render(CASES[name]).objects, "PrometheusRule")
    rules: list[dict[str, Any]] = rule["spec"]["groups"][0]["rules"]
    return rules


def _panels(renderer: Renderer) -> list[dict[str, Any]]:
    data = only(
        [
            item
            for item in renderer.render(CASES["dashboard"]).objects
            if item["metadata"]["name"] == "gemma-gemma4-nim-dashboard"
        ],
        "ConfigMap",
    )["data"]
    panels: list[dict[str, Any]] = json.loads(data["models-gemma-gemma4-nim.json"])["panels"]
    return panels


def _check(query: str) -> None:
    promql_parser.parse(query)
    assert METRIC.findall(query), query
    for selector in re.findall(r"\{[^}]*\}", query):
        assert 'namespace="models"' in selector, query
        assert "gemma-gemma4-nim" in selector, query


@pytest.mark.parametrize("name", ["alerts", "alerts for everything", "example production"])
def test_alerts_ask_for_this_release(renderer: Renderer, name: str) -> None:
    """Each alert has a valid query, a severity, and tells what is wrong and what to do."""
    for rule in _rules(renderer, name):
        if rule["alert"] == "Mine":
            continue
        _check(rule["expr"])
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert len(rule["annotations"]["description"]) > 30


def test_alerts_follow_what_is_installed(renderer: Renderer) -> None:
    """Alerts about a job, a volume or an autoscaler come with these; any can be left out, others added."""
    few = {rule["alert"] for rule in _rules(renderer, "example production")}
    many = {rule["alert"] for rule in _rules(renderer, "alerts for everything")}

    assert many - few == {"GemmaDownloadFailed", "GemmaAtMostReplicas", "Mine"}
    assert few - many == {"GemmaUnschedulable"}
    assert all(rule["labels"]["team"] == "ai" for rule in _rules(renderer, "alerts"))


def test_dashboard_asks_for_this_release(renderer: Renderer) -> None:
    """Every panel has a valid query; none lies on another."""
    places = set()
    for panel in _panels(renderer):
        assert panel["targets"]
        for target in panel["targets"]:
            _check(target["expr"])
        box = panel["gridPos"]
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells


def test_final_exit_codes_are_the_launchers() -> None:
    """Job and alert treat as final what the launcher does not count as worth a retry."""
    text = (CHART / "templates" / "_model.tpl").read_text()
    found = re.search(r'"gemma4-nim\.finalExitCodes" -\}\}\n\[([0-9, ]+)\]', text)
    assert found is not None

    final = [int(code) for code in ExitCode if 64 <= code < 128 and not code.is_worth_a_retry]
    assert [int(code) for code in found.group(1).split(",")] == final
