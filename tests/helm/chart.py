"""Renders the chart with the real Helm, each set of values once per test run, and reads what came out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.helm.clients import client

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "gemma4-nim"
EXAMPLES = ROOT / "helm" / "examples"
HERE = Path(__file__).parent
NEWEST = "1.37.0"
OLDEST = "1.30.0"
RELEASE = "gemma"
NAMESPACE = "models"

Object = dict[str, Any]


class _StrictLoader(yaml.CSafeLoader):
    """Reads YAML and refuses what Kubernetes' own readers would: a key that comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are all different."""
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} come twice", node.start_mark)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Answer:
    """What Helm said."""

    code: int
    output: str
    errors: str

    @cached_property
    def objects(self) -> list[Object]:
        """The objects that it rendered; read once, so nobody may change them."""
        assert self.code == 0, self.errors
        return [document for document in yaml.load_all(self.output, _StrictLoader) if document]


class Renderer:
    """Runs ``helm template``; answers are kept in a folder that all test processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Answer] = {}
        files = sorted(path for path in CHART.rglob("*") if path.is_file())
        self._chart = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()

    def render(self, values: dict[str, Any], kubernetes: str = NEWEST, release: str = RELEASE) -> Answer:
        """Render the chart with these values, with notes and test pods."""
        key = hashlib.sha256(json.dumps([self._chart, values, kubernetes, release]).encode()).hexdigest()
        if key not in self._known:
            self._known[key] = self._kept(self._folder / f"{key[:32]}.json", values, kubernetes, release)
        return self._known[key]

    def _kept(self, path: Path, values: dict[str, Any], kubernetes: str, release: str) -> Answer:
        """Return what another process kept, or render and keep it."""
        if path.exists():
            return Answer(*json.loads(path.read_text()))
        answer = self.run("template", release, "--kube-version", kubernetes, values=values)
        made = path.with_suffix(f".{os.getpid()}")
        made.write_text(json.dumps([answer.code, answer.output, answer.errors]))
        made.rename(path)
        return answer

    def run(self, command: str, *arguments: str, values: dict[str, Any]) -> Answer:
        """Run one Helm command on the chart, which follows the arguments."""
        done = subprocess.run(
            [str(client("helm")), command, *arguments, str(CHART), "--namespace", NAMESPACE, "--values", "-"],
            input=json.dumps(values), capture_output=True, text=True, check=False, timeout=60, env=self._environment(),
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    def _environment(self) -> dict[str, str]:
        """Return an environment without this machine's Helm settings and clusters."""
        names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME")
        return {name: str(self._folder) for name in names} | {"KUBECONFIG": "/dev/null", "GOGC": "off"}


def kind(objects: list[Object], name: str) -> list[Object]:
    """Return the objects of one kind."""
    return [item for item in objects if item["kind"] == name]


def only(objects: list[Object], name: str) -> Object:
    """Return the one object of a kind, leaving test hooks aside."""
    found = [item for item in kind(objects, name) if not is_test(item)]
    assert len(found) == 1, f"{len(found)} objects of kind {name}"
    return found[0]


def workload(objects: list[Object]) -> Object:
    """Return the Deployment or StatefulSet of the server."""
    found = [item for item in kind(objects, "Deployment") + kind(objects, "StatefulSet") if not is_engine(item)]
    assert len(found) == 1
    return found[0]


def server(objects: list[Object]) -> Object:
    """Return the server's container."""
    pod = workload(objects)["spec"]["template"]["spec"]
    return next(container for container in pod["containers"] if container["name"] == "server")


def environment(container: Object) -> dict[str, Any]:
    """Return a container's variables: text, or where it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def is_test(item: Object) -> bool:
    """Tell whether an object belongs to ``helm test``."""
    return item["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"


def is_engine(item: Object) -> bool:
    """Tell whether an object belongs to engines in pods of their own."""
    return bool(item["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "engine")


def pod_specs(objects: list[Object]) -> list[tuple[str, Object]]:
    """Return every pod that these objects make, with the name of what makes it."""
    specs = []
    for item in objects:
        label = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Pod":
            specs.append((label, item["spec"]))
        else:
            specs += [(label, template["spec"]) for template in pod_templates(item)]
    return specs


def pod_templates(item: Object) -> list[Object]:
    """Return the templates of the pods that an object makes; those of a group's leader and workers are different."""
    if item["kind"] == "LeaderWorkerSet":
        group = item["spec"]["leaderWorkerTemplate"]
        return [group["leaderTemplate"], group["workerTemplate"]]
    return [item["spec"]["template"]] if item["kind"] in {"Deployment", "StatefulSet", "Job"} else []


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod, init containers first."""
    found: list[Object] = pod.get("initContainers", []) + pod["containers"]
    return found


def cases() -> dict[str, dict[str, Any]]:
    """Return the matrix: every example, and every entry of ``cases.yaml``, as name to values."""
    examples = {f"example {path.stem}": _loaded(path) for path in sorted(EXAMPLES.glob("*.yaml"))}
    return examples | _loaded(HERE / "cases.yaml")


def _loaded(path: Path) -> Any:
    # The loader in C: these files are read wherever tests are collected.
    return yaml.load(path.read_text(), yaml.CSafeLoader)
