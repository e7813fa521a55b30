"""Engines in pods of their own: what they are started with, and that the API finds them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.environment import child_environment
from config.runtime import EngineRuntime
from engine.triton.protocol import MODEL_NAME
from tests.fakes.scripted_engine import ScriptedEngine
from tests.helm.chart import CHART, Object, Renderer, cases, containers, environment, is_engine, kind, server, workload

CASES = cases()
PLAIN, TRITON = "engines in pods of their own", "engines in Triton"


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


def test_another_runtime_restarts_the_engines(renderer: Renderer) -> None:
    """A changed ConfigMap alone would reach no process."""
    values: dict[str, Any] = json.loads(json.dumps(CASES[PLAIN]))
    values["engines"]["runtime"]["context_tokens"] = 4096
    before, after = (_engines(renderer.render(one).objects)["StatefulSet"] for one in (CASES[PLAIN], values))

    assert before["spec"]["template"] != after["spec"]["template"]


def _ready(address: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CHART / "files" / "engine_ready.py"), address]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=child_environment({}))


def test_kubelet_waits_for_the_model(renderer: Renderer, tmp_path: Path) -> None:
    """The script that the probe runs is content with an engine that can generate, and with nothing less."""
    engines = _engines(renderer.render(CASES[PLAIN]).objects)
    (container,) = containers(engines["StatefulSet"]["spec"]["template"]["spec"])
    command = container["startupProbe"]["exec"]["command"]
    socket = tmp_path / "engine.sock"
    with ScriptedEngine(socket) as engine:
        done = _ready(engine.endpoint)
        assert done.returncode == 0, done.stderr
    gone = _ready(engine.endpoint)

    assert gone.returncode == 1
    assert "does not answer" in gone.stderr
    assert command == ["python3", "/etc/gemma4-nim/engine/ready.py", "127.0.0.1:8001"]
    assert engines["ConfigMap"]["data"]["ready.py"].strip() == (CHART / "files" / "engine_ready.py").read_text().strip()
    assert MODEL_NAME == "gemma4"


def test_only_the_api_reaches_engines(renderer: Renderer) -> None:
    """They ask for no key."""
    policies = kind(renderer.render(CASES[PLAIN]).objects, "NetworkPolicy")
    (engines,) = [item["spec"] for item in policies if is_engine(item)]
    (own,) = [item["spec"] for item in policies if not is_engine(item)]

    assert engines["ingress"][0]["from"] == [{"podSelector": own["podSelector"]}]
    assert {"podSelector": engines["podSelector"]} in own["egress"][-1]["to"]
    assert "egress" not in engines


def test_fields_of_an_engine_are_those_that_it_takes() -> None:
    """The chart forgets none, and allows no other; where it listens is the chart's to say."""
    notation = yaml.safe_load((CHART.parent / "values.schema.yaml").read_text())

    assert notation["engines"]["runtime"].keys() == EngineRuntime.model_fields.keys() - {"endpoint"}
