"""What a cluster asks of objects beyond their schemas: names, references, and the pod security standard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.helm.chart import Object, containers, is_engine, kind, pod_specs, pod_templates, workload

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def broken_rules(objects: list[Object]) -> list[str]:
    """Return every rule that these objects break."""
    found = [*_names(objects), *_selectors(objects)]
    for label, pod in pod_specs(objects):
        found += [f"{label}: {problem}" for problem in _pod_problems(pod, _claim_names(objects, label))]
    return found


def _names(objects: list[Object]) -> Iterator[str]:
    seen = set()
    for item in objects:
        identity = (item["kind"], item["metadata"]["name"])
        if identity in seen:
            yield f"{identity} comes twice"
        seen.add(identity)
        if not _NAME.fullmatch(identity[1]) or len(identity[1]) > 63:
            yield f"{identity} is no name"
        for key, value in item["metadata"].get("labels", {}).items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                yield f"{identity}: {key}={value} is no label"


def _selectors(objects: list[Object]) -> Iterator[str]:
    """The server's pods are selected by everything that selects, and no other pod is; engines' objects mean engines."""
    engines = [item for item in objects if is_engine(item)]
    if engines:
        objects = [item for item in objects if not is_engine(item)]
        labels, *more = [template["metadata"]["labels"] for item in engines for template in pod_templates(item)]
        if any(one != labels for one in more):
            yield "a policy that means engines does not mean all of them"
        selectors = [item["spec"]["selector"] for item in kind(engines, "Service") + kind(engines, "StatefulSet")]
        if not all(selector.get("matchLabels", selector).items() <= labels.items() for selector in selectors):
            yield "engines do not select themselves"
    server = workload(objects)["spec"]["template"]["metadata"]["labels"]
    others = [item["metadata"]["labels"] for item in kind(objects, "Pod")]
    others += [item["spec"]["template"]["metadata"]["labels"] for item in kind(objects, "Job")]
    others += [template["metadata"]["labels"] for item in engines for template in pod_templates(item)]
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            selector = spec["selector"]
        elif item["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget", "InferencePool"}:
            selector = spec["selector"]["matchLabels"]
        else:
            continue
        name = f"{item['kind']} {item['metadata']['name']}"
        if not selector.items() <= server.items():
            yield f"{name} does not select the server's pods"
        if any(selector.items() <= labels.items() for labels in others):
            yield f"{name} selects pods that do not serve"


def _claim_names(objects: list[Object], label: str) -> set[str]:
    for item in objects:
        if f"{item['kind']}/{item['metadata']['name']}" == label:
            return {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
    return set()


def _pod_problems(pod: Object, claims: set[str]) -> Iterator[str]:
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    if len(volumes) != len(set(volumes)):
        yield "two volumes of one name"
    if claims & set(volumes):
        yield "a volume and a claim of one name"
    ports = [port for container in pod["containers"] for port in container.get("ports", [])]
    if len({port["name"] for port in ports}) != len(ports) or any(len(port["name"]) > 15 for port in ports):
        yield "a port's name is too long or comes twice"
    for container in containers(pod):
        mounts = container.get("volumeMounts", [])
        if not {mount["name"] for mount in mounts} <= set(volumes) | claims:
            yield f"{container['name']} mounts a volume that is not there"
        if len({mount["mountPath"] for mount in mounts}) != len(mounts):
            yield f"{container['name']} mounts two volumes at one place"
        names = [entry["name"] for entry in container.get("env", [])]
        if len(names) != len(set(names)):
            yield f"{container['name']} has a variable twice, which server-side apply refuses"
        wanted = {claim["name"] for claim in container.get("resources", {}).get("claims", [])}
        if not wanted <= {claim["name"] for claim in pod.get("resourceClaims", [])}:
            yield f"{container['name']} uses a claim that the pod lacks"


def unrestricted(pod: Object) -> list[str]:
    """Return what the pod security standard "restricted" would refuse about a pod."""
    found = []
    security = pod.get("securityContext", {})
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("shares a namespace of the node")
    found += [
        f"volume {volume['name']} is of a kind that is not allowed"
        for volume in pod.get("volumes", [])
        if not set(volume) - {"name"} <= _ALLOWED_VOLUMES
    ]
    for container in containers(pod):
        found += [f"{container['name']}: {problem}" for problem in _unrestricted(container, security)]
    return found


def _unrestricted(container: Object, pod_security: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if own.get("privileged"):
        yield "is privileged"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "keeps capabilities"
    if own.get("runAsNonRoot", pod_security.get("runAsNonRoot")) is not True:
        yield "may run as root"
    if own.get("runAsUser", pod_security.get("runAsUser")) == 0:
        yield "runs as root"
    profile = own.get("seccompProfile", pod_security.get("seccompProfile", {})).get("type")
    if profile not in {"RuntimeDefault", "Localhost"}:
        yield "has no seccomp profile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "takes a port of the node"
