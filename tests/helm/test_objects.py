"""What the chart makes of its values where more than one field has to agree."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.helm.chart import (
    EXAMPLES,
    RELEASE,
    Object,
    Renderer,
    cases,
    environment,
    is_test,
    kind,
    only,
    server,
    workload,
)

CASES = cases()


def _pod(objects: list[Object]) -> Object:
    spec: Object = workload(objects)["spec"]["template"]["spec"]
    return spec


def _startup_seconds(objects: list[Object]) -> int:
    probe = server(objects)["startupProbe"]
    return int(probe["initialDelaySeconds"] + probe["failureThreshold"] * probe["periodSeconds"])


def _sized(**model: str) -> dict[str, Any]:
    return {"model": model}


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (_sized(size="100M"), 40 + 1800),
        # 62,500 MB: 625 s to read, 1,250 s to download, 120 s besides.
        (_sized(variant="31b", precision="bf16"), 2000),
        (_sized(profile="vllm-31b-bf16-tp2-pp1-latency"), 2000),
        (_sized(profile="vllm-26b-a4b-nvfp4-tp1-pp1-latency"), 40 + 1800),
        ({**_sized(variant="31b", precision="bf16"), "download": {"mode": "initContainer"}}, 40 + 1800),
        ({**_sized(size="1Ti"), "download": {"megabytesPerSecond": 1000}}, 12220),
        ({**_sized(size="1Ti"), "startupProbe": {"failureThreshold": 6}}, 100),
    ],
)
def test_startup_probe_has_time_for_the_model(renderer: Renderer, values: dict[str, Any], seconds: int) -> None:
    """The time comes from the model's bytes, and is never less than NVIDIA's half an hour."""
    assert _startup_seconds(renderer.render(values).objects) == seconds


@pytest.mark.parametrize(("mode", "scheme"), [("mTLS", "HTTPS"), ("tls", "HTTPS"), ("disabled", None), (False, None)])
def test_probes_and_tests_speak_what_the_server_does(renderer: Renderer, mode: str | bool, scheme: str | None) -> None:
    """TLS is said once, in the settings; the tests of the chart get the key that they are given."""
    key = {"name": "NIM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "test"}}}
    objects = renderer.render({"settings": {"NIM_SSL_MODE": mode}, "tests": {"env": [key]}}).objects
    probes = [server(objects)[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    tests = [item["spec"]["containers"][0] for item in kind(objects, "Pod") if is_test(item)]

    assert {probe.get("scheme") for probe in probes} == {scheme}
    assert {test["command"][3].partition(":")[0] for test in tests} == {(scheme or "HTTP").lower()}
    assert all(test["env"] == [key] for test in tests)


def test_rollout_waits_for_the_download(renderer: Renderer) -> None:
    """A Deployment whose pods wait for a job has not failed before the job has, and the start after it."""
    objects = renderer.render(CASES["example shared-store"]).objects
    deadline = only(objects, "Job")["spec"]["activeDeadlineSeconds"]

    assert workload(objects)["spec"]["progressDeadlineSeconds"] > deadline + _startup_seconds(objects)


def test_grace_period_follows_the_drain(renderer: Renderer) -> None:
    """Pause, drain and a margin; the server's own time is the same value."""
    objects = renderer.render({"drainSeconds": 120, "preStopSeconds": 10}).objects

    assert _pod(objects)["terminationGracePeriodSeconds"] == 145
    assert environment(server(objects))["NIM_SHUTDOWN_GRACE_SECONDS"] == "120"
    assert server(objects)["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}


def test_no_key_has_to_exist(renderer: Renderer) -> None:
    """Gemma 4 is public: the secrets of a default installation may be missing."""
    objects = renderer.render({}).objects
    references = [entry["secretKeyRef"] for entry in environment(server(objects)).values() if isinstance(entry, dict)]

    assert references == [{"name": "ngc-api", "key": "NGC_API_KEY", "optional": True}]
    assert "imagePullSecrets" not in _pod(objects)
    assert kind(objects, "Secret") == []


def test_keys_become_secrets_of_the_release(renderer: Renderer) -> None:
    """Keys stand in secrets only, named after the release, so two releases do not collide; a new key restarts pods."""
    answer = renderer.render({"model": {"ngcAPIKey": "nvapi-1", "hfToken": "hf-2"}})
    keys, pull = sorted(kind(answer.objects, "Secret"), key=lambda secret: str(secret["type"]))
    login = json.loads(base64.b64decode(pull["data"][".dockerconfigjson"]))
    other = renderer.render({"model": {"ngcAPIKey": "nvapi-9", "hfToken": "hf-2"}}).objects

    assert keys["data"] == {"NGC_API_KEY": "bnZhcGktMQ==", "HF_TOKEN": "aGYtMg=="}
    assert login == {"auths": {"nvcr.io": {"username": "$oauthtoken", "password": "nvapi-1"}}}
    assert _pod(answer.objects)["imagePullSecrets"] == [{"name": pull["metadata"]["name"]}]
    assert {keys["metadata"]["name"], pull["metadata"]["name"]} == {
        "gemma-gemma4-nim-keys",
        "gemma-gemma4-nim-ngc-pull",
    }
    assert "nvapi-1" not in answer.output
    assert "hf-2" not in answer.output
    assert workload(other)["spec"]["template"] != workload(answer.objects)["spec"]["template"]


def test_job_downloads_and_the_server_stays_offline(renderer: Renderer) -> None:
    """With a job, only the job writes, has keys and goes to the network; the pods wait for the files."""
    objects = renderer.render(CASES["example shared-store"]).objects
    job = only(objects, "Job")["spec"]["template"]["spec"]["containers"][0]
    (wait,) = _pod(objects)["initContainers"]

    assert job["command"] == wait["command"] == ["download-to-cache", "--profiles", "vllm-31b-fp8-tp1-pp1-throughput"]
    assert "NIM_OFFLINE" not in environment(job)
    assert "NGC_API_KEY" in environment(job)
    for container in (wait, server(objects)):
        assert environment(container)["NIM_OFFLINE"] == "1"
        assert "NGC_API_KEY" not in environment(container)
        assert container["volumeMounts"][0]["readOnly"] is True
    assert "readOnly" not in job["volumeMounts"][0]
    assert "nvidia.com/gpu" not in json.dumps(job["resources"])


def test_init_container_sees_the_gpus(renderer: Renderer) -> None:
    """It chooses among profiles as the server would, so it has what the server has."""
    objects = renderer.render({"download": {"mode": "initContainer"}, "model": {"variant": "31b"}}).objects
    (download,) = _pod(objects)["initContainers"]

    assert download["resources"] == server(objects)["resources"]
    assert environment(download)["NIM_MODEL_VARIANT"] == "31b"
    assert environment(server(objects))["NIM_OFFLINE"] == "1"


def test_hook_runs_before_everything_else(renderer: Renderer) -> None:
    """The job of the hook needs nothing that the release itself makes."""
    objects = renderer.render(CASES["download before the release"]).objects
    job = only(objects, "Job")
    pod = job["spec"]["template"]["spec"]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "serviceAccountName" not in pod
    assert pod["volumes"][0] == {"name": "model-store", "persistentVolumeClaim": {"claimName": "models"}}
    policy = next(item for item in kind(objects, "NetworkPolicy") if "download" in item["metadata"]["name"])
    assert policy["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_read_only_store_means_offline(renderer: Renderer) -> None:
    """Nothing can be written there, so nothing is downloaded, and the server does not try."""
    objects = renderer.render(CASES["nfs, read-only"]).objects

    assert environment(server(objects))["NIM_OFFLINE"] == "1"
    assert _pod(objects)["volumes"][0]["nfs"]["readOnly"] is True


def test_a_variable_of_the_user_wins(renderer: Renderer) -> None:
    """Values of the chart, then settings, then env; each name stands once."""
    objects = renderer.render(CASES["settings and variables"]).objects
    variables = environment(server(objects))

    assert variables["NIM_LOG_LEVEL"] == "DEBUG"
    assert variables["NIM_MAX_IMAGE_BYTES"] == "104857600"
    assert variables["NIM_LENIENT_REQUESTS"] == "1"
    assert variables["NIM_STRICT_CONFIG"] == "1"


def test_device_claims_replace_the_device_plugin(renderer: Renderer) -> None:
    """One GPU must not be asked for twice."""
    objects = renderer.render(CASES["claims of devices"]).objects
    template = only(objects, "ResourceClaimTemplate")

    assert server(objects)["resources"] == {"claims": [{"name": "gpu"}]}
    assert _pod(objects)["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": template["metadata"]["name"]}
    ]


def test_spread_means_the_servers_pods(renderer: Renderer) -> None:
    """An entry without a selector gets the right one; one with a selector keeps it."""
    first, second = _pod(renderer.render(CASES["placed"]).objects)["topologySpreadConstraints"]

    assert first["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "server"
    assert second["labelSelector"] == {"matchLabels": {"a": "b"}}


def test_ids_can_be_left_to_openshift(renderer: Renderer) -> None:
    """No id of the chart stands in the way of the namespace's own."""
    security = _pod(renderer.render(CASES["example openshift"]).objects)["securityContext"]

    assert not security.keys() & {"runAsUser", "runAsGroup", "fsGroup"}
    assert security["runAsNonRoot"] is True


def test_mig_slice_stands_alone(renderer: Renderer) -> None:
    """The default of a whole GPU is gone when a slice is asked for."""
    assert server(renderer.render(CASES["example mig"]).objects)["resources"]["limits"] == {"nvidia.com/mig-3g.40gb": 1}


def test_air_gap_opens_no_way_out(renderer: Renderer) -> None:
    """Names may be asked for; no address outside the cluster can be reached."""
    policy = only(renderer.render(CASES["example air-gap"]).objects, "NetworkPolicy")

    (names,) = policy["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}


def test_egress_leaves_out_what_is_inside(renderer: Renderer) -> None:
    """A picture's URL cannot reach the cluster, its nodes or a cloud's metadata service."""
    policy = only(renderer.render(CASES["traffic restricted"]).objects, "NetworkPolicy")
    block = policy["spec"]["egress"][1]["to"][0]["ipBlock"]

    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(block["except"])


def test_tests_may_reach_a_restricted_server(renderer: Renderer) -> None:
    """``helm test`` works, whoever else may come in."""
    objects = renderer.render(CASES["example production"]).objects
    peers = only(objects, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    tester = next(item for item in objects if is_test(item) and item["kind"] == "Pod")

    assert any(
        peer["podSelector"]["matchLabels"].items() <= tester["metadata"]["labels"].items()
        for peer in peers
        if "podSelector" in peer
    )


def test_routes_lead_to_the_service_and_its_port(renderer: Renderer) -> None:
    """Ingress and HTTPRoute follow the service's name and port."""
    values = CASES["ingress"] | {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}
    objects = renderer.render(values).objects
    service = next(item for item in kind(objects, "Service") if item["spec"].get("clusterIP") != "None")
    (rule,) = only(objects, "HTTPRoute")["spec"]["rules"]
    backend = only(objects, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]

    assert service["metadata"]["name"] == "chat"
    assert rule["backendRefs"] == [{"name": "chat", "port": service["spec"]["ports"][0]["port"]}]
    assert backend == {"name": "chat", "port": {"name": service["spec"]["ports"][0]["name"]}}


@pytest.mark.parametrize("name", ["scaled by CPU", "scaled by a metric", "scaled by KEDA"])
def test_autoscaler_owns_the_number_of_replicas(renderer: Renderer, name: str) -> None:
    """The workload names none, and the autoscaler means the workload."""
    objects = renderer.render(CASES[name]).objects
    scaler = next(item for item in objects if item["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"})

    assert "replicas" not in workload(objects)["spec"]
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1", "kind": workload(objects)["kind"], "name": workload(objects)["metadata"]["name"],
    }  # fmt: skip


def test_a_volume_for_one_node_is_handed_over(renderer: Renderer) -> None:
    """A rolling update would wait forever for a volume that the old pod holds."""
    assert workload(renderer.render(CASES["one volume, recreated"]).objects)["spec"]["strategy"] == {"type": "Recreate"}
    assert "strategy" not in workload(renderer.render(CASES["deployment"]).objects)["spec"]


@pytest.mark.parametrize(
    ("name", "says", "is_silent_about"),
    [
        ("defaults", ["statefulset/gemma-gemma4-nim", "helm test gemma --namespace models", "an empty folder"], "job"),
        ("example shared-store", ["deployment/gemma-gemma4-nim", "component=download"], "an empty folder"),
        ("existing claim, read-only", ["the claim models", "it must be ReadWriteMany"], "an empty folder"),
        ("node port", ["port-forward service/chat 8000:8000"], "it must be ReadWriteMany"),
        ("no tests", ["/v1/models"], "helm test"),
    ],
)
def test_notes_say_what_to_do_next(renderer: Renderer, name: str, says: list[str], is_silent_about: str) -> None:
    """After the installation Helm shows commands that fit, and warns about what will surprise."""
    notes = renderer.run("install", RELEASE, "--dry-run=client", values=CASES[name]).output.partition("NOTES:")[2]

    assert all(words in notes for words in says), notes
    assert is_silent_about not in notes


def test_every_example_says_what_it_is_for() -> None:
    """The first line of an example is a sentence."""
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        assert path.read_text().startswith("# "), path.name
