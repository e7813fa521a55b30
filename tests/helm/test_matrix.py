"""The chart over a matrix of values: every object is one that the cluster takes, without unknown fields and safely."""

from __future__ import annotations

import re
import subprocess
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from config.settings import sections
from tests.helm.chart import (
    CHART,
    NEWEST,
    OLDEST,
    Renderer,
    cases,
    containers,
    environment,
    kind,
    pod_specs,
    server,
    workload,
)
from tests.helm.clients import client
from tests.helm.cluster_rules import broken_rules, unrestricted
from tests.helm.schemas import CUSTOM, custom_schemas, problems, read
from tests.helm.shrink_crd import shrunk

CASES = cases()
UNRESTRICTED = {
    "folder of the node": "the standard allows no folders of the node",
    "nvidia aws with folders of the node": "the same",
    "nfs": "the standard allows NFS through a claim only",
    "nfs, read-only": "the same",
    "download by a job onto nfs": "the same",
    "adapters on nfs": "the same",
    "adapters in a folder of the node": "the standard allows no folders of the node",
    "allowed to be root": "asks to be root",
}
"""Value sets that the pod security standard "restricted" refuses, and why."""
NEEDS = {"claims of devices": "1.34.0", "claims of devices by an existing template": "1.34.0"}
"""Value sets that the chart refuses on clusters older than these."""


@pytest.mark.parametrize("name", CASES)
def test_values_make_objects_that_a_cluster_takes(renderer: Renderer, name: str) -> None:
    """Every field is known to the oldest and the newest supported Kubernetes, and references lead somewhere."""
    objects = renderer.render(CASES[name]).objects

    assert [problem for item in objects for problem in problems(item, NEWEST)] == []
    built_in = [item for item in objects if (item["apiVersion"], item["kind"]) not in custom_schemas()]
    assert [problem for item in built_in for problem in problems(item, NEEDS.get(name, OLDEST))] == []
    assert broken_rules(objects) == []


@pytest.mark.parametrize("name", CASES)
def test_pods_are_restricted_and_read_only(renderer: Renderer, name: str) -> None:
    """All pods pass the standard "restricted", with a read-only root and without a token of the cluster."""
    objects = renderer.render(CASES[name]).objects
    found = [f"{label}: {problem}" for label, pod in pod_specs(objects) for problem in unrestricted(pod)]

    assert bool(found) == (name in UNRESTRICTED), found
    for label, pod in pod_specs(objects):
        assert pod["automountServiceAccountToken"] is (name == "account of one's own"), label
        assert all(item["securityContext"]["readOnlyRootFilesystem"] for item in containers(pod)), label


@pytest.mark.parametrize("name", CASES)
def test_chart_names_only_settings_that_the_server_knows(renderer: Renderer, name: str) -> None:
    """A variable that nothing reads would be a value without effect."""
    objects = renderer.render(CASES[name]).objects
    known = {field.alias for model in sections().values() for field in model.model_fields.values()}

    for _, pod in pod_specs(objects):
        for container in containers(pod):
            names = {entry["name"] for entry in container.get("env", []) if entry["name"].startswith("NIM_")}
            assert names <= known


@pytest.mark.parametrize("name", CASES)
def test_times_of_a_pod_fit_together(renderer: Renderer, name: str) -> None:
    """The kubelet waits longer than the server drains, and the server gives up before the probe does."""
    objects = renderer.render(CASES[name]).objects
    pod = workload(objects)["spec"]["template"]["spec"]
    variables = environment(server(objects))
    pause = server(objects).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)

    assert pod["terminationGracePeriodSeconds"] > pause + int(variables["NIM_SHUTDOWN_GRACE_SECONDS"])
    probe = server(objects).get("startupProbe")
    if probe:
        allowed = probe["initialDelaySeconds"] + probe["failureThreshold"] * probe["periodSeconds"]
        assert allowed - 60 <= int(variables["NIM_START_TIMEOUT_SECONDS"]) < allowed
        if name != "fixed start time":
            assert probe["initialDelaySeconds"] >= 40
            assert probe["failureThreshold"] >= 180


def test_matrix_is_large_enough() -> None:
    """Every object that the chart can make appears in the matrix."""
    assert len(CASES) >= 30


def test_matrix_reaches_every_template(renderer: Renderer) -> None:
    """No template is left that only users would run."""
    sources = set()
    for values in CASES.values():
        output = renderer.render(values).output
        sources |= {line.rpartition("templates/")[2] for line in output.splitlines() if line.startswith("# Source: ")}

    templates = {str(path.relative_to(CHART / "templates")) for path in (CHART / "templates").rglob("*.yaml")}
    assert sources == templates


def test_helm_lints_the_chart(renderer: Renderer) -> None:
    """The strict linter finds nothing, warnings included."""
    answer = renderer.run("lint", "--strict", values={})

    assert answer.code == 0, answer.output
    assert "[WARNING]" not in answer.output
    assert "[ERROR]" not in answer.output


def test_validator_agrees_with_the_published_one(renderer: Renderer) -> None:
    """The package's own strict validation takes what the tests take, and refuses what they refuse."""
    objects = deepcopy(renderer.render(CASES["example production"]).objects)
    for item in objects:
        if (item["apiVersion"], item["kind"]) not in custom_schemas():
            assert kubernetes_validate.validate(item, "1.37", strict=True) == "1.37"

    broken: dict[str, Any] = workload(objects)
    server(objects)["imagePolicy"] = "Always"
    assert problems(broken, NEWEST)
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePolicy"):
        kubernetes_validate.validate(broken, "1.37", strict=True)


@pytest.mark.parametrize(("version", "name"), sorted(custom_schemas()))
def test_unknown_field_of_a_custom_kind_is_found(version: str, name: str) -> None:
    """The schemas of custom kinds are as strict as those of the cluster's own."""
    item = {"apiVersion": version, "kind": name, "metadata": {"name": "a"}, "spec": {"noSuchField": 1}}

    assert any("noSuchField" in problem for problem in problems(item, NEWEST))


def test_schemas_of_custom_kinds_lose_words_and_no_field() -> None:
    """A field may have the name of a keyword that goes."""
    schema = {"description": "d", "type": "object", "properties": {"default": {"type": "string", "default": "a"}}}

    assert shrunk(schema) == {"type": "object", "properties": {"default": {"type": "string"}}}
    for path in CUSTOM.glob("*.json*"):
        file = read(path)
        assert re.fullmatch(r"v\d+\.\d+\.\d+", file["version"]), path
        assert re.search(r"/blob/[0-9a-f]{40}/", file["source"]), path


def test_kubectl_reads_every_workload(renderer: Renderer) -> None:
    """The real client decodes all workloads into the API's own types: quantities, probes, durations."""
    made = [item for values in CASES.values() for item in renderer.render(values).objects]
    pods = [item for item in made if item["kind"] in {"Deployment", "StatefulSet", "Job"}]
    done = subprocess.run(
        [str(client("kubectl")), "set", "env", "--local", "--filename", "-", "CHECKED=1", "--output", "name"],
        input=yaml.dump_all(pods, Dumper=yaml.CSafeDumper), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(pods) > len(CASES)
    assert kind(made, "Job")
