"""Engines in pods of their own: what they are started with, and that the API finds them."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.environment import child_environment
from config.runtime import AdapterRuntime, EngineCluster, EngineRuntime
from engine.nodes import add_options, placed
from tests.fakes.scripted_engine import ScriptedEngine
from tests.helm.chart import (
    CHART,
    Object,
    Renderer,
    cases,
    containers,
    environment,
    is_engine,
    kind,
    only,
    server,
    workload,
)

CASES = cases()
PLAIN, TRITON, GROUPS = "engines in pods of their own", "engines in Triton", "engines over two nodes each"
TLS, MUTUAL = "engines with certificates", "engines in Triton with certificates on both sides"


def _engines(objects: list[Object]) -> dict[str, Object]:
    found = {item["kind"]: item for item in objects if is_engine(item) and item["kind"] != "NetworkPolicy"}
    assert found.keys() == {"ConfigMap", "Service", "StatefulSet"}
    return found


def _addresses(engines: dict[str, Object]) -> list[str]:
    """Return where a cluster's DNS has the pods of the StatefulSet."""
    stateful = engines["StatefulSet"]
    (port,) = engines["Service"]["spec"]["ports"]
    host = f"{stateful['spec']['serviceName']}.{stateful['metadata']['namespace']}.svc:{port['port']}"
    return [f"{stateful['metadata']['name']}-{number}.{host}" for number in range(stateful["spec"]["replicas"])]


@pytest.mark.parametrize(("name", "module"), [(PLAIN, "engine"), (TRITON, "engine.triton")])
def test_engine_is_started_with_its_runtime(renderer: Renderer, name: str, module: str) -> None:
    """The file is one that the engine takes, lies where the command says, and means the port that is opened."""
    engines = _engines(renderer.render(CASES[name]).objects)
    pod = engines["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = containers(pod)
    runtime = EngineRuntime.model_validate_json(engines["ConfigMap"]["data"]["runtime.json"])
    (folder,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "runtime"]

    assert container["command"] == ["python3", "-m", module, "--runtime", f"{folder}/runtime.json"]
    assert runtime.endpoint == f"0.0.0.0:{container['ports'][0]['containerPort']}"
    assert engines["Service"]["metadata"]["name"] == engines["StatefulSet"]["spec"]["serviceName"]
    for field, value in CASES[name]["engines"]["runtime"].items():
        assert runtime.model_dump(mode="json")[field] == value


@pytest.mark.parametrize("name", [PLAIN, TRITON])
def test_api_finds_every_engine(renderer: Renderer, name: str) -> None:
    """It gets the host names of all, the same store and tokenizer, no GPU, and downloads nothing."""
    objects = renderer.render(CASES[name]).objects
    engines = _engines(objects)
    variables = environment(server(objects))
    pods = [workload(objects)["spec"]["template"]["spec"], engines["StatefulSet"]["spec"]["template"]["spec"]]

    assert variables["NIM_ENGINE_ENDPOINTS"].split(",") == _addresses(engines)
    assert variables["NIM_TOKENIZER_PATH"] == CASES[name]["engines"]["runtime"]["tokenizer_path"]
    assert variables["NIM_OFFLINE"] == "1"
    assert pods[0]["volumes"][0] == pods[1]["volumes"][0]
    assert "nvidia.com/gpu" not in json.dumps(pods[0]["containers"][0]["resources"])
    assert "nvidia.com/gpu" in json.dumps(pods[1]["containers"][0]["resources"])


def _expanded(word: str, variables: dict[str, str]) -> str:
    """Return a word of a command as the kubelet passes it on."""
    return re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], word)


def test_engine_over_several_nodes_is_one_group(renderer: Renderer) -> None:
    """The controller's variables tell each pod its place in words that the engine takes, and the API finds leaders."""
    objects = renderer.render(CASES[GROUPS]).objects
    group = only(objects, "LeaderWorkerSet")
    config = next(item for item in kind(objects, "ConfigMap") if is_engine(item))
    template = group["spec"]["leaderWorkerTemplate"]
    leader, worker = (containers(template[f"{role}Template"]["spec"])[0] for role in ("leader", "worker"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime")
    add_options(parser)

    for rank, container in enumerate((leader, worker)):
        given = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": str(rank), "LWS_LEADER_ADDRESS": "a-0.a.models"}
        words = [_expanded(word, given) for word in container["command"]]
        runtime = EngineRuntime.model_validate_json(config["data"]["runtime.json"])
        place = placed(runtime, parser.parse_args(words[3:])).cluster
        assert place == EngineCluster(nodes=2, rank=rank, leader="a-0.a.models:29500")
        assert {"name": "VLLM_HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}} in container["env"]
    assert (group["spec"]["replicas"], template["size"]) == (2, 2)
    assert template["restartPolicy"] == "RecreateGroupOnPodRestart"
    assert "startupProbe" in leader
    assert not {"startupProbe", "livenessProbe", "ports"} & worker.keys()
    # The leaders' host names, as the controller makes them: group by group, in a service of the object's own name.
    name = group["metadata"]["name"]
    hosts = [f"{name}-{number}.{name}.models.svc:8001" for number in range(2)]
    assert environment(server(objects))["NIM_ENGINE_ENDPOINTS"].split(",") == hosts
    assert not [item for item in kind(objects, "Service") if item["metadata"]["name"] == name]


def test_nodes_of_an_engine_reach_each_other(renderer: Renderer) -> None:
    """The processes of vLLM listen on ports that nobody knows beforehand; only engines reach them."""
    policies = kind(renderer.render(CASES[GROUPS]).objects, "NetworkPolicy")
    (spec,) = [item["spec"] for item in policies if is_engine(item)]
    peers = [{"podSelector": spec["podSelector"]}]

    assert {"from": peers} in spec["ingress"]
    assert {"to": peers} in spec["egress"]
    assert all("to" not in rule or rule["to"] == peers for rule in spec["egress"])


@pytest.mark.parametrize(("name", "mutual"), [(TLS, False), (MUTUAL, True)])
def test_connections_to_engines_are_encrypted(renderer: Renderer, name: str, mutual: bool) -> None:
    """Each side reads its own key only, from a file that it mounts, and both name the authority of the other."""
    objects = renderer.render(CASES[name]).objects
    engines = _engines(objects)
    runtime = EngineRuntime.model_validate_json(engines["ConfigMap"]["data"]["runtime.json"])
    variables = environment(server(objects))
    api_files = _mounted(workload(objects)["spec"]["template"]["spec"], "server")
    engine_files = _mounted(engines["StatefulSet"]["spec"]["template"]["spec"], "engine")
    values = CASES[name]["engines"]["tls"]
    authority = (values.get("authoritySecret", values["secret"]), "ca.crt")

    assert runtime.tls is not None
    assert engine_files[str(runtime.tls.certificate)] == (values["secret"], "tls.crt")
    assert engine_files[str(runtime.tls.key)] == (values["secret"], "tls.key")
    assert api_files[variables["NIM_ENGINE_TLS_CA"]] == authority
    assert (values["secret"], "tls.key") not in api_files.values()
    assert (runtime.tls.client_authorities is not None) is mutual
    if mutual:
        assert engine_files[str(runtime.tls.client_authorities)] == authority
        assert api_files[variables["NIM_ENGINE_TLS_KEY"]] == (values["clientSecret"], "tls.key")
        assert api_files[variables["NIM_ENGINE_TLS_CERT"]] == (values["clientSecret"], "tls.crt")
        assert (values["clientSecret"], "tls.key") not in engine_files.values()


def _mounted(pod: Object, name: str) -> dict[str, tuple[str, str]]:
    """Return the files that a container gets from secrets: path to name of the secret and entry."""
    (container,) = [item for item in containers(pod) if item["name"] == name]
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    found: dict[str, tuple[str, str]] = {}
    for mount in container["volumeMounts"]:
        if mount["name"] in secrets:
            source = secrets[mount["name"]]
            entries = [item["key"] for item in source.get("items", [])] or ["tls.crt", "tls.key", "ca.crt"]
            found |= {f"{mount['mountPath']}/{entry}": (source["secretName"], entry) for entry in entries}
    return found


def test_another_runtime_restarts_the_engines(renderer: Renderer) -> None:
    """A changed ConfigMap alone would reach no process."""
    values: dict[str, Any] = json.loads(json.dumps(CASES[PLAIN]))
    values["engines"]["runtime"]["context_tokens"] = 4096
    before, after = (_engines(renderer.render(one).objects)["StatefulSet"] for one in (CASES[PLAIN], values))

    assert before["spec"]["template"] != after["spec"]["template"]


def test_kubelet_waits_for_the_model(renderer: Renderer, tmp_path: Path) -> None:
    """What the probe runs is content with an engine that can generate, and with nothing less."""
    engines = _engines(renderer.render(CASES[PLAIN]).objects)
    (container,) = containers(engines["StatefulSet"]["spec"]["template"]["spec"])
    python, *words, path = container["startupProbe"]["exec"]["command"]
    runtime = json.loads(engines["ConfigMap"]["data"]["runtime.json"])
    file = tmp_path / "runtime.json"
    assert (python, path) == ("python3", container["command"][-1])

    def ready() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words, str(file)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=child_environment({})
        )

    with ScriptedEngine(tmp_path / "engine.sock") as engine:
        file.write_text(json.dumps(runtime | {"endpoint": engine.endpoint}))
        done = ready()
        assert done.returncode == 0, done.stderr
    assert ready().returncode == 1


def test_only_the_api_reaches_engines(renderer: Renderer) -> None:
    """They ask for no key."""
    policies = kind(renderer.render(CASES[PLAIN]).objects, "NetworkPolicy")
    (engines,) = [item["spec"] for item in policies if is_engine(item)]
    (own,) = [item["spec"] for item in policies if not is_engine(item)]

    assert engines["ingress"][0]["from"] == [{"podSelector": own["podSelector"]}]
    assert {"podSelector": engines["podSelector"]} in own["egress"][-1]["to"]
    assert "egress" not in engines


def test_fields_of_an_engine_are_those_that_it_takes() -> None:
    """The chart forgets none, and allows no other; where it listens, how and with whom is the chart's to say."""
    notation = yaml.safe_load((CHART.parent / "values.schema.yaml").read_text())

    assert notation["engines"]["runtime"].keys() == EngineRuntime.model_fields.keys() - {"endpoint", "tls", "cluster"}
    assert notation["engines"]["runtime"]["adapters"].keys() == AdapterRuntime.model_fields.keys()
