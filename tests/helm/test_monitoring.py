"""Alerts, dashboard and autoscalers: every query is PromQL, on metrics that exist, for this release only."""

from __future__ import annotations

import json
import re
from typing import Any

import promql_parser
import pytest

from launcher.errors import ExitCode
from tests.helm.chart import CHART, ROOT, Renderer, cases, kind, only

CASES = cases()
EXPORTERS = ("kube_", "kubelet_", "container_", "DCGM_")
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
TARGET = {"namespace", "pod"}
"""Labels that Prometheus gives to every sample of a target."""


def _own_samples() -> dict[str, set[str]]:
    """Return the labels of all samples of the server, from the table that is held to what the server serves."""
    found = {}
    for line in (ROOT / "docs" / "operations.md").read_text().splitlines():
        row = re.match(r"\| `(gemma4_nim_\w+)` \| (\w+) \|([^|]*)\|", line)
        if row:
            name, form, labels = row.groups()
            known = set(re.findall(r"`(\w+)`", labels)) | TARGET
            for suffix in SUFFIXES[form]:
                found[name + suffix] = known | ({"le"} if suffix == "_bucket" else set())
    assert len(found) > 40
    return found


OWN = _own_samples()


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


def _check(query: str) -> set[str]:
    """See that a query asks for metrics that exist, by labels that they have, of this release only; return them."""
    names = set()
    labels = TARGET | {label for words in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in words.split(", ")}

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name is not None
            matchers = {matcher.name: matcher.value for matcher in node.matchers.matchers}
            assert matchers["namespace"] == "models", query
            assert any("gemma-gemma4-nim" in value for value in matchers.values()), query
            if not node.name.startswith(EXPORTERS):
                assert node.name in OWN, query
                assert matchers.keys() <= OWN[node.name], query
                assert labels <= OWN[node.name] or "kube_" in query, query
            names.add(node.name)
        return True

    assert promql_parser.walk(promql_parser.parse(query), visit)
    assert names, query
    return names


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
    assert "GemmaNotScraped" in few & many
    assert "GemmaNotScraped" not in {rule["alert"] for rule in _rules(renderer, "alerts")}
    assert all(rule["labels"]["team"] == "ai" for rule in _rules(renderer, "alerts"))


def test_alerts_read_the_servers_own_metrics(renderer: Renderer) -> None:
    """What only the server knows has alerts of its own, and the threshold is the one that was set."""
    rules = {rule["alert"]: rule["expr"] for rule in _rules(renderer, "alerts")}
    own = {alert for alert, query in rules.items() if _check(query) & OWN.keys()}

    assert own == {"GemmaErrors", "GemmaSlowFirstToken", "GemmaQueueLong", "GemmaRefusing", "GemmaEngineDown",
                   "GemmaCrashes", "GemmaCacheFull"}  # fmt: skip
    assert rules["GemmaSlowFirstToken"].endswith(" > 2.5")


def test_autoscalers_ask_for_metrics_that_exist(renderer: Renderer) -> None:
    """The short forms name metrics of the server, for this release."""
    scaled = only(renderer.render(CASES["scaled by the server's metric"]).objects, "HorizontalPodAutoscaler")
    (trigger,) = only(renderer.render(CASES["scaled by requests"]).objects, "ScaledObject")["spec"]["triggers"]
    (metric,) = scaled["spec"]["metrics"]

    assert metric["pods"]["metric"]["name"] in OWN
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "6"}
    assert len(_check(trigger["metadata"]["query"])) == 2
    assert trigger["metadata"]["threshold"] == "4"


def test_metrics_are_scraped_from_one_service(renderer: Renderer) -> None:
    """The monitor means a port of the service for requests, and not that of the service for host names."""
    objects = renderer.render(CASES["scraped"]).objects
    spec = only(objects, "ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    (service,) = [item for item in kind(objects, "Service") if wanted <= item["metadata"]["labels"].items()]

    assert service["metadata"]["name"] == "gemma-gemma4-nim"
    assert [endpoint["port"] for endpoint in spec["endpoints"]] == [service["spec"]["ports"][0]["name"]]
    assert not spec["endpoints"][0].keys() & {"authorization", "scheme", "tlsConfig"}


def test_dashboard_asks_for_this_release(renderer: Renderer) -> None:
    """Every panel has a valid query; none lies on another."""
    places = set()
    asked = set()
    for panel in _panels(renderer):
        assert panel["targets"]
        for target in panel["targets"]:
            asked |= _check(target["expr"])
        box = panel["gridPos"]
        cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
    assert len(asked & OWN.keys()) > 10


def test_final_exit_codes_are_the_launchers() -> None:
    """Job and alert treat as final what the launcher does not count as worth a retry."""
    text = (CHART / "templates" / "_model.tpl").read_text()
    found = re.search(r'"gemma4-nim\.finalExitCodes" -\}\}\n\[([0-9, ]+)\]', text)
    assert found is not None

    final = [int(code) for code in ExitCode if 64 <= code < 128 and not code.is_worth_a_retry]
    assert [int(code) for code in found.group(1).split(",")] == final
