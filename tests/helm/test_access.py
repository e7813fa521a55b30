"""Keys and certificates: what the chart mounts and sends opens a real server, and nothing less does."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from config.environment import child_environment
from tests.api.conftest import ScriptedServer, start_scripted_server
from tests.fakes.processes import TLS_DATA
from tests.helm.chart import CHART, Object, Renderer, cases, environment, is_test, kind, only, server, workload

CASES = cases()
FOLDER = "/etc/gemma4-nim"
OTHER_KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
KEY = "00112233445566778899aabbccddeeff"
VALUES: dict[str, Any] = {
    "apiKeys": {"keys": {"alice@example.org": OTHER_KEY, "checks": KEY}, "client": {"name": "checks"}},
    "tls": {"secret": "server", "clientAuthoritySecret": "ca", "authoritySecret": "ca", "clientSecret": "client"},
    "metrics": {"serviceMonitor": {"enabled": True}},
}
MADE: dict[str, dict[str, Path]] = {
    "server": {"tls.crt": TLS_DATA / "server.pem", "tls.key": TLS_DATA / "server.key"},
    "client": {"tls.crt": TLS_DATA / "client.pem", "tls.key": TLS_DATA / "client.key"},
    "ca": {"ca.crt": TLS_DATA / "ca.pem"},
}
"""Secrets that a user would have made: entry to file."""


@dataclass
class Cluster:
    """The objects of an installation, and its server, which runs here on the files that the pod would have."""

    objects: list[Object]
    folder: Path
    server: ScriptedServer

    def secret(self, name: str, entry: str) -> bytes:
        """Return an entry of a secret."""
        if name in MADE:
            return MADE[name][entry].read_bytes()
        (found,) = [item for item in kind(self.objects, "Secret") if item["metadata"]["name"] == name]
        return base64.b64decode(found["data"][entry])

    def mount(self, pod: Object, container: Object, root: Path) -> None:
        """Write the secrets that a container mounts below ``root``."""
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        for mount in container["volumeMounts"]:
            if mount["name"] not in secrets:
                continue
            folder = root / mount["mountPath"].lstrip("/")
            folder.mkdir(parents=True)
            name = secrets[mount["name"]]
            if name in MADE:
                for entry, path in MADE[name].items():
                    shutil.copy(path, folder / entry)
            else:
                (found,) = [item for item in kind(self.objects, "Secret") if item["metadata"]["name"] == name]
                for entry in found["data"]:
                    (folder / entry).write_bytes(self.secret(name, entry))


@pytest.fixture(scope="module")
def cluster(renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start the server of an installation with keys and certificates for both sides."""
    folder = tmp_path_factory.mktemp("cluster")
    objects = renderer.render(VALUES).objects
    made = Cluster.__new__(Cluster)
    made.objects, made.folder = objects, folder
    container = server(objects)
    made.mount(workload(objects)["spec"]["template"]["spec"], container, folder)
    variables = {
        name: value.replace(FOLDER, f"{folder}{FOLDER}")
        for name, value in environment(container).items()
        if name.startswith(("NIM_SSL_", "NIM_API_KEY"))
    }
    with start_scripted_server(folder, variables) as made.server:
        yield made


def _check(cluster: Cluster, test: str, folder: Path, *without: str) -> subprocess.CompletedProcess[str]:
    """Run a pod of ``helm test`` here, with its variables and files but for some variables."""
    pod = next(item for item in kind(cluster.objects, "Pod") if item["metadata"]["name"].endswith(f"-test-{test}"))
    container = pod["spec"]["containers"][0]
    cluster.mount(pod["spec"], container, folder)
    variables = {}
    for name, source in environment(container).items():
        if isinstance(source, dict):
            reference = source["secretKeyRef"]
            variables[name] = cluster.secret(reference["name"], reference["key"]).decode()
        else:
            variables[name] = f"{folder}{source}"
    for name in without:
        del variables[name]
    assert container["command"][3] == "https://gemma-gemma4-nim.models.svc:8000"
    command = [sys.executable, "-I", str(CHART / "files" / "check.py"), test, cluster.server.base_url, "60"]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=90, env={**child_environment({}), **variables}
    )


def test_pod_of_helm_test_gets_in(cluster: Cluster, tmp_path: Path) -> None:
    """It checks the server's certificate, shows its own, and sends its key."""
    done = _check(cluster, "models", tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("serves ")


@pytest.mark.parametrize(("missing", "answer"), [("NIM_API_KEY", "401"), ("CLIENT_CERTIFICATE", "403")])
def test_nobody_gets_in_with_less(cluster: Cluster, tmp_path: Path, missing: str, answer: str) -> None:
    """Key and certificate are both needed."""
    done = _check(cluster, "chat", tmp_path, missing)

    assert done.returncode == 1
    assert f"/v1/models answered {answer}" in done.stderr


def test_probes_get_in_without_anything(cluster: Cluster) -> None:
    """The kubelet has no key and no certificate, and does not check the server's."""
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = server(cluster.objects)[name]["httpGet"]
        assert probe["scheme"] == "HTTPS"
        answer = requests.get(cluster.server.base_url + probe["path"], verify=str(TLS_DATA / "ca.pem"), timeout=60)
        assert answer.status_code == 200, answer.text


def test_prometheus_gets_in(cluster: Cluster, tmp_path: Path) -> None:
    """With what the ServiceMonitor names it can read the metrics; without the key it cannot."""
    (endpoint,) = only(cluster.objects, "ServiceMonitor")["spec"]["endpoints"]
    files = {"cert": endpoint["tlsConfig"]["cert"]["secret"], "key": endpoint["tlsConfig"]["keySecret"]}
    files["ca"] = endpoint["tlsConfig"]["ca"]["secret"]
    for name, reference in files.items():
        (tmp_path / name).write_bytes(cluster.secret(reference["name"], reference["key"]))
    reference = endpoint["authorization"]["credentials"]
    key = cluster.secret(reference["name"], reference["key"]).decode()
    address = cluster.server.base_url + endpoint["path"]
    certificate = (str(tmp_path / "cert"), str(tmp_path / "key"))

    def scrape(**headers: str) -> requests.Response:
        return requests.get(address, headers=headers, cert=certificate, verify=str(tmp_path / "ca"), timeout=60)

    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == "gemma-gemma4-nim.models.svc"
    assert "gemma4_nim_http_requests_total" in scrape(authorization=f"Bearer {key}").text
    assert scrape().status_code == 401


def test_keys_stand_in_secrets_only(renderer: Renderer) -> None:
    """The server gets hashes; a key itself is only where the chart's own pods read it, and other keys nowhere."""
    answer = renderer.render(VALUES)

    assert KEY not in answer.output
    assert OTHER_KEY not in answer.output
    texts = [base64.b64decode(text) for item in kind(answer.objects, "Secret") for text in item["data"].values()]
    assert sum(KEY.encode() in text for text in texts) == 1
    assert not any(OTHER_KEY.encode() in text for text in texts)


def test_existing_secrets_have_to_exist(renderer: Renderer) -> None:
    """A server whose keys are missing must not start open; only the server gets them."""
    objects = renderer.render(CASES["keys that exist, for requests"]).objects
    pod = workload(objects)["spec"]["template"]["spec"]
    variables = environment(server(objects))
    secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    tests = [environment(item["spec"]["containers"][0]) for item in kind(objects, "Pod") if is_test(item)]

    assert variables["NIM_API_KEYS"] == {"secretKeyRef": {"name": "more-keys", "key": "NIM_API_KEYS"}}
    assert variables["NIM_API_KEY_HASHES_PATH"] == f"{FOLDER}/keys/hashes.txt"
    assert secrets == [{"secretName": "team-keys"}]
    assert [test["NIM_API_KEY"]["secretKeyRef"] for test in tests] == [{"name": "monitoring", "key": "token"}] * 4


def test_metrics_can_be_left_open(renderer: Renderer) -> None:
    """Then Prometheus needs no key, and the tests may bring one of their own."""
    objects = renderer.render(CASES["keys for all but metrics"]).objects
    (endpoint,) = only(objects, "ServiceMonitor")["spec"]["endpoints"]

    assert environment(server(objects))["NIM_METRICS_PUBLIC"] == "1"
    assert "authorization" not in endpoint
    assert workload(objects)["spec"]["template"]["spec"]["volumes"][0]["name"] == "model-store"
    for item in kind(objects, "Pod"):
        assert len(item["spec"]["containers"][0]["env"]) == 1


def test_service_says_that_it_speaks_https(renderer: Renderer) -> None:
    """Its port keeps its name, which NVIDIA's chart gave it; gateways and meshes look at the protocol."""
    for name, protocol in (("https", "https"), ("defaults", None)):
        for item in kind(renderer.render(CASES[name]).objects, "Service"):
            (port,) = item["spec"]["ports"]
            assert port["name"] == "http-openai"
            assert port.get("appProtocol") == protocol
