"""What the chart tells its pods in split mode is run here as processes: an engine and an API with certificates.

Paths of the pods become those of a folder with the same content, and the engine's host name becomes this machine's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from config.environment import child_environment
from engine.triton.client import EngineClient
from engine.triton.connection import ConnectionOptions, TlsFiles
from tests.conftest import COMMAND, DEMO
from tests.fakes.processes import ServerProcess, free_port
from tests.helm.chart import Object, Renderer, cases, containers, environment, is_engine, kind, server

TLS = Path(__file__).parents[1] / "data" / "tls"
CERTIFICATES = {"engines-tls": TLS / "engine.pem", "api-tls": TLS / "client.pem"}
"""Both are signed by themselves, so both are authorities, too."""


def _values(port: int) -> dict[str, Any]:
    """Return values for one engine on llama.cpp, with certificates on both sides."""
    values = cases()["engines in Triton with certificates on both sides"]
    runtime = {"model_path": "/model-store/model.gguf", "tokenizer_path": "/model-store/tokenizer.json"}
    engines = values["engines"] | {"server": "plain", "replicas": 1, "port": port}
    return values | {"tls": {}, "engines": engines | {"runtime": runtime | {"context_tokens": 1024}}}


def _write_secrets(pods: list[Object], folder: Path) -> None:
    """Write the files that the pods mount from secrets."""
    for pod in pods:
        for volume in pod["volumes"]:
            name = volume.get("secret", {}).get("secretName")
            place = folder / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            if name in CERTIFICATES:
                for entry in ("tls.crt", "tls.key"):
                    (place / entry).write_bytes(CERTIFICATES[name].read_bytes())
            elif name == "company-ca":
                (place / "ca.crt").write_text("".join(map(_certificate, CERTIFICATES.values())))


def _certificate(path: Path) -> str:
    head, begin, rest = path.read_text().partition("-----BEGIN CERTIFICATE-----")
    assert head.startswith("-----BEGIN PRIVATE KEY-----") or not head
    return begin + rest.partition("-----BEGIN PRIVATE")[0]


@contextmanager
def _engine(command: list[str], variables: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=child_environment({}) | variables)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _localiser(folder: Path) -> Callable[[str], str]:
    places = {"/etc/gemma4-nim": str(folder), "/model-store": str(DEMO)}

    def local(text: str) -> str:
        for there, here in places.items():
            text = text.replace(there, here)
        return text

    return local


@pytest.mark.slow
def test_api_and_engine_of_the_chart_work_together(renderer: Renderer, tmp_path: Path) -> None:
    """The probe is content, a request is answered, and without the API's certificate nobody gets in."""
    port = free_port()
    objects = renderer.render(_values(port)).objects
    (stateful,) = [item for item in kind(objects, "StatefulSet") if is_engine(item)]
    (config,) = [item for item in kind(objects, "ConfigMap") if is_engine(item)]
    (deployment,) = kind(objects, "Deployment")
    pods = [item["spec"]["template"]["spec"] for item in (stateful, deployment)]
    local = _localiser(tmp_path)
    _write_secrets(pods, tmp_path)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "runtime.json").write_text(local(config["data"]["runtime.json"]))
    (container,) = containers(pods[0])
    start, probe = (
        [sys.executable, *map(local, command[1:])]
        for command in (container["command"], container["startupProbe"]["exec"]["command"])
    )
    texts = {name: value for name, value in environment(server(objects)).items() if isinstance(value, str)}
    host = f"{stateful['metadata']['name']}-0.{stateful['spec']['serviceName']}.models.svc"
    assert texts["NIM_ENGINE_ENDPOINTS"] == f"{host}:{port}"
    there = {"NIM_ENGINE_ENDPOINTS": f"127.0.0.1:{port}", "NIM_ENGINE_TLS_SERVER_NAME": "engine.test"}
    api = {name: local(value) for name, value in texts.items()} | there | {"NIM_CACHE_PATH": str(tmp_path / "cache")}

    with (
        _engine(start, environment(container), tmp_path / "engine.log"),
        ServerProcess([str(COMMAND), "serve"], free_port(), tmp_path / "api.log", api) as running,
    ):
        ready = subprocess.run(probe, capture_output=True, text=True, timeout=120, check=False)
        body = {"model": "google/gemma-4-31b-it", "messages": [{"role": "user", "content": "Capital of France?"}]}
        answer = requests.post(f"{running.base_url}/v1/chat/completions", json=body, timeout=120)
        assert (ready.returncode, ready.stderr) == (0, "")
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
        authorities = Path(api["NIM_ENGINE_TLS_CA"])
        own = CERTIFICATES["api-tls"]
        for known in (TlsFiles(authorities, own, own, "engine.test"), TlsFiles(authorities, server_name="engine.test")):
            gets_in = asyncio.run(_gets_in(f"127.0.0.1:{port}", known))
            assert gets_in is (known.certificate is not None)


async def _gets_in(address: str, tls: TlsFiles) -> bool:
    client = EngineClient([address], ConnectionOptions(tls=tls))
    try:
        return await client.ready()
    finally:
        await client.close()
