"""LoRA adapters: whoever runs the engine mounts them, and is told where they lie."""

from __future__ import annotations

from typing import Any

import pytest

from config.runtime import EngineRuntime
from tests.helm.chart import Object, Renderer, cases, containers, environment, is_engine, kind, server, workload

CASES = cases()
CLAIM, NFS, FOLDER = "adapters on a claim", "adapters on nfs", "adapters in a folder of the node"
APART = "adapters of engines in pods of their own"


def _mount(pod: Object, container: Object) -> tuple[Any, Any]:
    """Return the mount and the volume of the adapters."""
    (mount,) = [item for item in container["volumeMounts"] if item["name"] == "adapters"]
    (volume,) = [item for item in pod["volumes"] if item["name"] == "adapters"]
    return mount, {key: value for key, value in volume.items() if key != "name"}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (CLAIM, {"persistentVolumeClaim": {"claimName": "adapters", "readOnly": True}}),
        (NFS, {"nfs": {"server": "10.0.0.5", "path": "/adapters", "readOnly": True}}),
        (FOLDER, {"hostPath": {"path": "/data/adapters", "type": "Directory"}}),
    ],
)
def test_server_reads_adapters(renderer: Renderer, name: str, source: Any) -> None:
    """It cannot write to them, and its settings are the values."""
    objects = renderer.render(CASES[name]).objects
    mount, volume = _mount(workload(objects)["spec"]["template"]["spec"], server(objects))
    variables = environment(server(objects))
    values = CASES[name]["adapters"]

    assert volume == source
    assert (mount["mountPath"], mount["readOnly"]) == (variables["NIM_PEFT_SOURCE"], True)
    assert mount.get("subPath") == values.get("subPath")
    assert variables["NIM_PEFT_REFRESH_INTERVAL"] == str(values.get("refreshSeconds", 0))
    assert variables["NIM_MAX_LORA_RANK"] == str(values.get("maxRank", 32))
    assert (variables["NIM_MAX_GPU_LORAS"], variables["NIM_MAX_CPU_LORAS"]) == ("8", "16")


def test_engines_apart_read_adapters_and_the_api_does_not(renderer: Renderer) -> None:
    """The engine's file says the same, and keeps the names of the model itself."""
    objects = renderer.render(CASES[APART]).objects
    (stateful,) = [item for item in kind(objects, "StatefulSet") if is_engine(item)]
    (config,) = [item for item in kind(objects, "ConfigMap") if is_engine(item)]
    pod = stateful["spec"]["template"]["spec"]
    mount, _ = _mount(pod, containers(pod)[0])
    adapters = EngineRuntime.model_validate_json(config["data"]["runtime.json"]).adapters

    assert adapters is not None
    assert (str(adapters.source), adapters.refresh_s, adapters.max_gpu) == (mount["mountPath"], 60, 4)
    assert adapters.reserved_names == ("google/gemma-4-31b-it",)
    assert "NIM_PEFT_SOURCE" not in environment(server(objects))
    assert "adapters" not in {item["name"] for item in workload(objects)["spec"]["template"]["spec"]["volumes"]}


def test_job_that_downloads_gets_no_adapters(renderer: Renderer) -> None:
    """It brings the model alone."""
    values = CASES[CLAIM] | {"nfs": {"enabled": True}, "download": {"mode": "job"}}
    (job,) = kind(renderer.render(values).objects, "Job")
    (container,) = containers(job["spec"]["template"]["spec"])

    assert "NIM_PEFT_SOURCE" not in environment(container)


def test_value_files_of_nim_llm_serve_adapters(renderer: Renderer) -> None:
    """That chart has no value for them: its users mount a volume of their own and set the variables."""
    values = {
        "extraVolumes": {"lora": {"persistentVolumeClaim": {"claimName": "loras"}}},
        "extraVolumeMounts": {"lora": {"mountPath": "/loras"}},
        "env": [{"name": "NIM_PEFT_SOURCE", "value": "/loras"}, {"name": "NIM_PEFT_REFRESH_INTERVAL", "value": "300"}],
    }
    variables = environment(server(renderer.render(values).objects))

    assert (variables["NIM_PEFT_SOURCE"], variables["NIM_PEFT_REFRESH_INTERVAL"]) == ("/loras", "300")
