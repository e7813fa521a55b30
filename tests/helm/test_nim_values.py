"""Every value of NVIDIA's chart nim-llm 1.1.2 works under its name, has no effect as there, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import Object, Renderer, kind, server, workload

ADDRESS = {"name": "a", "value": "b"}
METRIC = {
    "type": "Resource",
    "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 9}},
}
SPREAD = {
    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": []}]}}
}
HPA = {"autoscaling": {"enabled": True, "metrics": [METRIC]}}
CLAIM = {"persistence": {"enabled": True}}
SCRAPED = {"metrics": {"serviceMonitor": {"enabled": True}}}
ROUTE = {"ingress": {"enabled": True}}
PLACE = {"host": "a.example.com", "paths": [{"path": "/v1", "pathType": "Prefix", "serviceType": "openai"}]}
TEMPLATE = "spec.volumeClaimTemplates.0"

WORKS: list[tuple[str, Any, dict[str, Any], str, str, Any]] = [
    # value, what it is set to, other values, where it shows (kind or part, path), and what stands there then
    ("affinity", SPREAD, {}, "pod", "affinity", SPREAD),
    ("containerSecurityContext", {"runAsUser": 7}, {}, "server", "securityContext.runAsUser", 7),
    ("customCommand", ["a"], {}, "server", "command", ["a"]),
    ("customArgs", ["a"], {}, "server", "args", ["a"]),
    ("env", [ADDRESS], {}, "server", "env.-1", ADDRESS),
    ("extraVolumes", {"a": {"emptyDir": {}}}, {}, "pod", "volumes.-1", {"name": "a", "emptyDir": {}}),
    ("extraVolumeMounts", {"a": {"mountPath": "/a"}}, {"extraVolumes": {"a": {"emptyDir": {}}}}, "server",
     "volumeMounts.-1", {"name": "a", "mountPath": "/a"}),
    ("image.repository", "a/b", {"image": {"tag": "c"}}, "server", "image", "a/b:c"),
    ("image.tag", "c", {"image": {"repository": "a/b"}}, "server", "image", "a/b:c"),
    ("image.pullPolicy", "Always", {}, "server", "imagePullPolicy", "Always"),
    ("imagePullSecrets", [{"name": "a"}], {}, "pod", "imagePullSecrets", [{"name": "a"}]),
    ("initContainers.extraInit", [{"name": "a", "image": "b"}], {}, "pod", "initContainers.0.name", "a"),
    ("nodeSelector", {"a": "b"}, {}, "pod", "nodeSelector", {"a": "b"}),
    ("podAnnotations", {"a": "b"}, {}, "workload", "spec.template.metadata.annotations", {"a": "b"}),
    ("podSecurityContext.runAsUser", 7, {}, "pod", "securityContext.runAsUser", 7),
    ("podSecurityContext.runAsGroup", 7, {}, "pod", "securityContext.runAsGroup", 7),
    ("podSecurityContext.fsGroup", 7, {}, "pod", "securityContext.fsGroup", 7),
    ("replicaCount", 3, {}, "workload", "spec.replicas", 3),
    ("resources.limits", {"nvidia.com/gpu": 2}, {}, "server", "resources.limits", {"nvidia.com/gpu": 2}),
    ("serviceAccount.create", False, {}, "pod", "serviceAccountName", "default"),
    ("serviceAccount.annotations", {"a": "b"}, {}, "ServiceAccount", "metadata.annotations", {"a": "b"}),
    ("serviceAccount.name", "a", {}, "pod", "serviceAccountName", "a"),
    ("statefulSet.enabled", False, {}, "workload", "kind", "Deployment"),
    ("tolerations", [{"operator": "Exists"}], {}, "pod", "tolerations", [{"operator": "Exists"}]),
    ("autoscaling.enabled", True, HPA, "HorizontalPodAutoscaler", "spec.scaleTargetRef.kind", "StatefulSet"),
    ("autoscaling.minReplicas", 2, HPA, "HorizontalPodAutoscaler", "spec.minReplicas", 2),
    ("autoscaling.maxReplicas", 7, HPA, "HorizontalPodAutoscaler", "spec.maxReplicas", 7),
    ("autoscaling.metrics", [METRIC], HPA, "HorizontalPodAutoscaler", "spec.metrics", [METRIC]),
    ("autoscaling.scaleDownStabilizationSecs", 9, HPA, "HorizontalPodAutoscaler",
     "spec.behavior.scaleDown.stabilizationWindowSeconds", 9),
    ("ingress.enabled", True, {}, "Ingress", "spec.rules.0.host", "chart-example.local"),
    ("ingress.className", "a", ROUTE, "Ingress", "spec.ingressClassName", "a"),
    ("ingress.annotations", {"a": "b"}, ROUTE, "Ingress", "metadata.annotations", {"a": "b"}),
    ("ingress.hosts", [PLACE], ROUTE, "Ingress", "spec.rules.0.http.paths.0.backend.service",
     {"name": "gemma-gemma4-nim", "port": {"name": "http-openai"}}),
    ("ingress.tls", [{"secretName": "a"}], ROUTE, "Ingress", "spec.tls", [{"secretName": "a"}]),
    ("livenessProbe.method", "script", {"livenessProbe": {"command": ["a"]}}, "server",
     "livenessProbe.exec.command", ["a"]),
    ("livenessProbe.command", ["b"], {"livenessProbe": {"method": "script"}}, "server",
     "livenessProbe.exec.command", ["b"]),
    *[
        (f"{probe}.{name}", value, {}, "server", f"{probe}.{path or name}", value)
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        for name, value, path in (
            ("path", "/a", "httpGet.path"), ("initialDelaySeconds", 77, ""), ("timeoutSeconds", 7, ""),
            ("periodSeconds", 7, ""), ("successThreshold", 1, ""), ("failureThreshold", 200, ""),
        )
    ],
    *[(f"{probe}.enabled", False, {}, "server", probe, None)
      for probe in ("livenessProbe", "readinessProbe", "startupProbe")],
    ("metrics.serviceMonitor.enabled", True, {}, "ServiceMonitor", "spec.endpoints.0.path", "/metrics"),
    ("metrics.serviceMonitor.additionalLabels", {"a": "b"}, SCRAPED, "ServiceMonitor", "metadata.labels.a", "b"),
    ("model.nimCache", "/a", {}, "server", "volumeMounts.0.mountPath", "/a"),
    ("model.name", "a", {}, "Pod", "spec.containers.0.command.-1", "a"),
    ("model.ngcAPISecret", "a", {}, "server", "env.0.valueFrom.secretKeyRef.name", "a"),
    ("model.ngcAPIKey", "a", {}, "Secret", "data.NGC_API_KEY", "YQ=="),
    ("model.openaiPort", 9000, {}, "server", "ports.0.containerPort", 9000),
    ("model.labels", {"a": "b"}, {}, "workload", "spec.template.metadata.labels.a", "b"),
    ("model.jsonLogging", False, {}, "variables", "NIM_JSONL_LOGGING", "0"),
    ("model.logLevel", "TRACE", {}, "variables", "NIM_LOG_LEVEL", "TRACE"),
    ("persistence.enabled", True, {}, "workload", f"{TEMPLATE}.metadata.name", "model-store"),
    ("persistence.existingClaim", "a", CLAIM, "pod", "volumes.0.persistentVolumeClaim.claimName", "a"),
    ("persistence.storageClass", "a", CLAIM, "workload", f"{TEMPLATE}.spec.storageClassName", "a"),
    ("persistence.storageClass", "-", CLAIM, "workload", f"{TEMPLATE}.spec.storageClassName", ""),
    ("persistence.accessMode", "ReadWriteMany", CLAIM, "PersistentVolumeClaim", "spec.accessModes", ["ReadWriteMany"]),
    ("persistence.stsPersistentVolumeClaimRetentionPolicy.whenDeleted", "Delete", CLAIM, "workload",
     "spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Delete"),
    ("persistence.stsPersistentVolumeClaimRetentionPolicy.whenScaled", "Delete", CLAIM, "workload",
     "spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Delete"),
    ("persistence.size", "70Gi", CLAIM, "workload", f"{TEMPLATE}.spec.resources.requests.storage", "70Gi"),
    ("persistence.annotations", {"a": "b"}, CLAIM, "workload", f"{TEMPLATE}.metadata.annotations", {"a": "b"}),
    ("hostPath.enabled", True, {}, "pod", "volumes.0.hostPath.path", "/model-store"),
    ("hostPath.path", "/a", {"hostPath": {"enabled": True}}, "pod", "volumes.0.hostPath.path", "/a"),
    ("nfs.enabled", True, {}, "pod", "volumes.0.nfs.path", "/exports"),
    ("nfs.server", "a", {"nfs": {"enabled": True}}, "pod", "volumes.0.nfs.server", "a"),
    ("nfs.path", "/a", {"nfs": {"enabled": True}}, "pod", "volumes.0.nfs.path", "/a"),
    ("nfs.readOnly", True, {"nfs": {"enabled": True}}, "pod", "volumes.0.nfs.readOnly", True),
    ("service.type", "NodePort", {}, "Service", "spec.type", "NodePort"),
    ("service.openaiPort", 80, {}, "Service", "spec.ports.0.port", 80),
    ("service.annotations", {"a": "b"}, {}, "Service", "metadata.annotations", {"a": "b"}),
    ("service.labels", {"a": "b"}, {}, "Service", "metadata.labels.a", "b"),
    ("service.name", "a", {}, "Service", "metadata.name", "a"),
]  # fmt: skip

WITHOUT_EFFECT = {
    # Without legacyCompat and multiNode they have none in nim-llm 1.1.2 either.
    "healthPort": 9, "metrics.enabled": False,
    "model.legacyCompat": False, "model.numGpus": 9, "model.subPath": "a", "model.modelStorePath": "a",
    "multiNode.enabled": False, "multiNode.clusterStartTimeout": 9, "multiNode.workers": 9, "multiNode.gpusPerNode": 9,
    "multiNode.leaderWorkerSet.enabled": False, "multiNode.mpiJob.workerAnnotations": {"a": "b"},
    "multiNode.mpiJob.launcherResources": {"limits": {"cpu": 1}}, "multiNode.optimized.enabled": False,
}  # fmt: skip

REFUSED = {
    "initContainers.ngcInit": ({"imageName": "a"}, "the server downloads from NGC itself"),
    "model.legacyCompat": (True, "older than NIM 1.0"),
    "multiNode.enabled": (True, "see engines.enabled and engines.nodes"),
}


def _nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = dict(one)
    for name, value in other.items():
        inner = both.get(name)
        both[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def _part(objects: list[Object], name: str) -> Any:
    if name == "workload":
        return workload(objects)
    if name == "pod":
        return workload(objects)["spec"]["template"]["spec"]
    if name == "server":
        return server(objects)
    if name == "variables":
        return {entry["name"]: entry.get("value") for entry in server(objects)["env"]}
    return kind(objects, name)[0]


def _at(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = item[int(name)] if isinstance(item, list) else item.get(name)
    return item


@pytest.mark.parametrize("row", WORKS, ids=[f"{row[0]}={row[1]}"[:60] for row in WORKS])
def test_value_works(renderer: Renderer, row: tuple[str, Any, dict[str, Any], str, str, Any]) -> None:
    """The value shows where NVIDIA's chart puts it, or where it should have."""
    value, setting, others, part, path, expected = row
    answer = renderer.render(_merged(others, _nested(value, setting)))

    assert _at(_part(answer.objects, part), path) == expected


@pytest.mark.parametrize("value", WITHOUT_EFFECT)
def test_value_is_taken_without_effect(renderer: Renderer, value: str) -> None:
    """Values that only old containers or several nodes know are allowed, and change nothing."""
    answer = renderer.render(_nested(value, WITHOUT_EFFECT[value]))

    assert answer.objects == renderer.render({}).objects


@pytest.mark.parametrize("value", REFUSED)
def test_value_is_refused_with_a_reason(renderer: Renderer, value: str) -> None:
    """What the server cannot do is not promised."""
    setting, reason = REFUSED[value]
    answer = renderer.render(_nested(value, setting))

    assert answer.code != 0
    assert reason in answer.errors


def test_no_value_of_nim_llm_is_forgotten() -> None:
    """The tables above have every value that the chart nim-llm 1.1.2 documents."""
    covered = {row[0] for row in WORKS} | WITHOUT_EFFECT.keys() | REFUSED.keys()
    missing = [line for line in NIM_LLM.split() if line not in covered]

    assert missing == []
    assert len(NIM_LLM.split()) > 90


NIM_LLM = """
affinity containerSecurityContext customCommand customArgs env extraVolumes extraVolumeMounts image.repository
image.pullPolicy image.tag imagePullSecrets initContainers.ngcInit initContainers.extraInit healthPort nodeSelector
podAnnotations podSecurityContext.runAsUser podSecurityContext.runAsGroup podSecurityContext.fsGroup replicaCount
resources.limits serviceAccount.create serviceAccount.annotations serviceAccount.name statefulSet.enabled tolerations
autoscaling.enabled autoscaling.minReplicas autoscaling.maxReplicas autoscaling.metrics
autoscaling.scaleDownStabilizationSecs ingress.enabled ingress.className ingress.annotations ingress.hosts ingress.tls
livenessProbe.enabled livenessProbe.method livenessProbe.command livenessProbe.path livenessProbe.initialDelaySeconds
livenessProbe.timeoutSeconds livenessProbe.periodSeconds livenessProbe.successThreshold livenessProbe.failureThreshold
readinessProbe.enabled readinessProbe.path readinessProbe.initialDelaySeconds readinessProbe.timeoutSeconds
readinessProbe.periodSeconds readinessProbe.successThreshold readinessProbe.failureThreshold startupProbe.enabled
startupProbe.path startupProbe.initialDelaySeconds startupProbe.timeoutSeconds startupProbe.periodSeconds
startupProbe.successThreshold startupProbe.failureThreshold metrics.enabled metrics.serviceMonitor.enabled
metrics.serviceMonitor.additionalLabels model.nimCache model.name model.ngcAPISecret model.ngcAPIKey model.openaiPort
model.labels model.jsonLogging model.logLevel model.legacyCompat model.numGpus model.subPath model.modelStorePath
persistence.enabled persistence.existingClaim persistence.storageClass persistence.accessMode
persistence.stsPersistentVolumeClaimRetentionPolicy.whenDeleted
persistence.stsPersistentVolumeClaimRetentionPolicy.whenScaled persistence.size persistence.annotations hostPath.enabled
hostPath.path nfs.enabled nfs.server nfs.path nfs.readOnly service.type service.openaiPort service.annotations
service.labels service.name multiNode.clusterStartTimeout multiNode.enabled multiNode.workers
multiNode.leaderWorkerSet.enabled multiNode.mpiJob.workerAnnotations multiNode.mpiJob.launcherResources
multiNode.gpusPerNode multiNode.optimized.enabled
"""
