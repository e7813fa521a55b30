"""An upgrade from any values to any others asks for no change that a cluster refuses, or is refused with a way out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import NAMESPACE, RELEASE, Object, Renderer, cases, only, workload

FREE = {
    "StatefulSet": {"replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy",
                    "minReadySeconds", "ordinals", "revisionHistoryLimit", "volumeClaimTemplates"},
    "Job": {"parallelism", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"},
    "ResourceClaimTemplate": set(),
}  # fmt: skip
"""What may change in the spec of kinds that are fixed otherwise. Claim templates may not: see the last test."""


def _fixed(item: Object) -> Any:
    """Return the part of an object that no upgrade can change, less what the chart itself refuses to change."""
    spec = item.get("spec", {})
    if item["kind"] == "PersistentVolumeClaim":
        return None
    if item["kind"] in FREE:
        return {key: value for key, value in spec.items() if key not in FREE[item["kind"]]}
    if item["kind"] == "Deployment":
        return spec["selector"]
    if item["kind"] == "Service":
        return spec.get("clusterIP")
    return item.get("type") if item["kind"] == "Secret" else None


@pytest.mark.slow
def test_no_upgrade_changes_what_is_fixed(renderer: Renderer) -> None:
    """Objects of one name differ in what may change only, between all pairs of value sets of the matrix."""
    rendered = {}
    for name, values in cases().items():
        objects = [item for item in renderer.render(values).objects if "helm.sh/hook" not in _annotations(item)]
        rendered[name] = {(item["kind"], item["metadata"]["name"]): _fixed(item) for item in objects}
    compared = 0
    for (old, before), (new, after) in permutations(rendered.items(), 2):
        for identity in before.keys() & after.keys():
            assert before[identity] == after[identity], f"{old} -> {new}: {identity}"
            compared += 1
    assert compared > 10_000


def _annotations(item: Object) -> dict[str, str]:
    found: dict[str, str] = item["metadata"].get("annotations") or {}
    return found


def test_claim_template_holds_nothing_of_the_chart(renderer: Renderer) -> None:
    """A newer chart or other labels must not change the volumes of a StatefulSet."""
    values = {"persistence": {"enabled": True}, "commonLabels": {"a": "b"}, "commonAnnotations": {"c": "d"}}
    (claim,) = workload(renderer.render(values).objects)["spec"]["volumeClaimTemplates"]

    assert claim["metadata"] == {"name": "model-store"}


def test_another_download_is_another_job(renderer: Renderer) -> None:
    """A job cannot change, so one that would do something else has another name; the same one keeps its name."""
    values = {"nfs": {"enabled": True}, "download": {"mode": "job"}}
    names = [
        only(renderer.render({**values, **more}).objects, "Job")["metadata"]["name"]
        for more in (
            {"model": {"profile": "a"}},
            {"model": {"profile": "b"}},
            {"model": {"profile": "a"}, "replicaCount": 3, "commonLabels": {"a": "b"}},
        )
    ]

    assert names[0] == names[2] != names[1]


class _Cluster(BaseHTTPRequestHandler):
    """Answers like an API server that has the objects of one release."""

    objects: dict[str, Object]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answer = {**_DISCOVERY, **self.objects}.get(path)
        body = json.dumps(answer or {"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound"}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _resources(version: str, *kinds: tuple[str, str]) -> Object:
    verbs = ["get", "list", "create", "patch", "delete"]
    resources = [
        {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs} for plural, kind in kinds
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


_APPS = {"groupVersion": "apps/v1", "version": "v1"}
_DISCOVERY: dict[str, Object] = {
    "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList", "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [_APPS], "preferredVersion": _APPS}],
    },
    "/api/v1": _resources(
        "v1", ("persistentvolumeclaims", "PersistentVolumeClaim"), ("services", "Service"),
        ("serviceaccounts", "ServiceAccount"), ("configmaps", "ConfigMap"), ("pods", "Pod"),
    ),
    "/apis/apps/v1": _resources("apps/v1", ("statefulsets", "StatefulSet"), ("deployments", "Deployment")),
}  # fmt: skip


@contextmanager
def _cluster(folder: Path, *objects: Object) -> Iterator[Path]:
    """Run a cluster with these objects and yield the file that tells Helm where it is."""
    plurals = {"StatefulSet": "apis/apps/v1", "PersistentVolumeClaim": "api/v1"}
    paths = {
        f"/{plurals[item['kind']]}/namespaces/{NAMESPACE}/{item['kind'].lower()}s/{item['metadata']['name']}": item
        for item in objects
    }
    handler = type("Cluster", (_Cluster,), {"objects": paths})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as api:
        thread = threading.Thread(target=api.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        config = folder / "kubeconfig"
        address = f"http://127.0.0.1:{api.server_address[1]}"
        config.write_text(
            yaml.safe_dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": address}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": ""}}],
            })
        )  # fmt: skip
        yield config
        api.shutdown()
        thread.join(100)


OWN_VOLUMES = {"persistence": {"enabled": True, "size": "60Gi", "storageClass": "fast"}}
ONE_VOLUME = {"statefulSet": {"enabled": False}, **OWN_VOLUMES}


@pytest.mark.parametrize(
    ("before", "change", "says"),
    [
        (OWN_VOLUMES, {}, None),
        (OWN_VOLUMES, {"size": "80Gi"}, "have volumes with 60Gi, ReadWriteOnce, class fast"),
        (OWN_VOLUMES, {"storageClass": "slow"}, "to change that to volumes with 60Gi, ReadWriteOnce, class slow"),
        (OWN_VOLUMES, {"accessMode": "ReadWriteOncePod"}, "--cascade=orphan"),
        (OWN_VOLUMES, {"annotations": {"a": "b"}}, 'annotations {"a":"b"}'),
        (OWN_VOLUMES, {"enabled": False}, "refuses to change that to no volumes of their own"),
        (OWN_VOLUMES, {"accessMode": "ReadWriteMany"}, "refuses to change that to no volumes of their own"),
        ({"persistence": {}}, {"enabled": True}, "have no volumes of their own"),
        (ONE_VOLUME, {"size": "80Gi"}, None),
        (ONE_VOLUME, {"enabled": False}, None),
        (ONE_VOLUME, {"storageClass": "slow"}, '"storageClassName":"fast"}, and a cluster refuses'),
        (ONE_VOLUME, {"accessMode": "ReadWriteMany"}, "name it in persistence.existingClaim"),
    ],
)  # fmt: skip
def test_upgrade_that_the_cluster_would_refuse(
    renderer: Renderer, tmp_path: Path, before: dict[str, Any], change: dict[str, str], says: str | None
) -> None:
    """Helm looks at the release's volumes in the cluster, and names the way out where they cannot change like this."""
    live = [
        item for item in renderer.render(before).objects if item["kind"] in {"StatefulSet", "PersistentVolumeClaim"}
    ]
    values = {**before, "persistence": {**before["persistence"], **change}}
    with _cluster(tmp_path, *live) as config:
        answer = renderer.run(
            "template", RELEASE, "--is-upgrade", "--dry-run=server", "--disable-openapi-validation",
            "--kubeconfig", str(config), values=values,
        )  # fmt: skip

    assert (answer.code == 0) == (says is None), answer.errors
    assert (says or "") in answer.errors
