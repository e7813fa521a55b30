"""What NVIDIA's NIM Operator runs in the image, as its controllers build it: the probe, the caching job, the service.

Commands and variables are those of k8s-nim-operator, ``internal/controller/nimcache_controller.go`` and
``api/apps/v1alpha1/nimservice_types.go``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from config.manifest import load_manifest
from config.manifest_export import export_yaml
from launcher.errors import ExitCode
from tests.fakes import console
from tests.fakes.file_server import file_server
from tests.fakes.manifests import file_entry, write_manifest

EXAMPLES = Path(__file__).parents[2] / "helm" / "examples" / "nim-operator"
DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"
FILES = ("model.gguf", "tokenizer.json")


@dataclass
class Cluster:
    """A source of models, the volume that the operator mounts, and what it injects into every container."""

    url: str
    store: Path
    variables: dict[str, str]
    profile: str


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    store, manifest = tmp_path / "model-store", tmp_path / "manifest.yaml"
    store.mkdir()
    with file_server(DEMO) as server:
        entries = {name: file_entry(server.url, DEMO / name) for name in FILES}
        # The job runs on a node without GPUs, for an engine that only other nodes have.
        (profile,) = write_manifest(manifest, ({"llm_engine": "vllm", "precision": "bf16"}, entries))
        injected = {
            "NIM_CACHE_PATH": str(store), "NIM_SERVER_PORT": "8000", "NIM_HTTP_API_PORT": "8000",
            "NIM_JSONL_LOGGING": "1", "NIM_LOG_LEVEL": "INFO", "OUTLINES_CACHE_DIR": str(tmp_path / "outlines"),
            "NIM_MANIFEST_PATH": str(manifest),
        }  # fmt: skip
        yield Cluster(server.url, store, injected, profile)


def test_the_caching_job_fills_the_store_and_may_be_repeated(cluster: Cluster) -> None:
    """``download-to-cache --profiles ID`` needs no GPU; a second pod of the job (backoffLimit 5) finds all there."""
    command = ("download-to-cache", "--profiles", cluster.profile)
    first = console.run(*command, variables=cluster.variables)
    again = console.run(*command, variables=cluster.variables | {"NIM_OFFLINE": "1"})

    assert first.returncode == again.returncode == ExitCode.OK, first.stderr + again.stderr
    assert first.stdout == again.stdout
    folder = Path(first.stdout.strip().partition(": ")[2])
    assert folder.is_relative_to(cluster.store)
    assert all((folder / name).read_bytes() == (DEMO / name).read_bytes() for name in FILES)


def test_a_model_without_a_manifest_becomes_a_plain_store(cluster: Cluster) -> None:
    """``create-model-store --model-repo X --model-store /model-store`` writes files, no links."""
    repository = f"{cluster.url}/model.gguf"
    done = console.run(
        "create-model-store", "--model-repo", repository, "--model-store", str(cluster.store / "plain"),
        variables=cluster.variables | {"NIM_CACHE_PATH": str(cluster.store / "cache")},
    )  # fmt: skip

    assert done.returncode == ExitCode.OK, done.stderr
    copy = cluster.store / "plain" / "model.gguf"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (DEMO / "model.gguf").read_bytes()


def test_the_job_fails_with_a_status_when_the_profile_is_unknown(cluster: Cluster) -> None:
    """A NIMCache that names a profile of another image fails at once, and says so."""
    done = console.run("download-to-cache", "--profiles", "f" * 64, variables=cluster.variables)

    console.fails_well(done, ExitCode.BAD_SETTINGS, "f" * 64)


def test_what_the_operator_injects_is_understood(cluster: Cluster) -> None:
    """Every variable of a service is known or is another program's: not even the strict mode complains."""
    strict = cluster.variables | {"NIM_STRICT_CONFIG": "1", "NIM_MODEL_PROFILE": "demo-moe"}
    done = console.run("nim-serve", "--dry-run", variables=strict)

    assert done.returncode == ExitCode.OK, done.stderr
    assert "OUTLINES" not in done.stderr


def test_the_manifest_is_what_the_operator_reads() -> None:
    """The probe pod prints it: version 2, ids of 64 hexadecimal digits, tags as texts, and files with addresses."""
    manifest = yaml.load(export_yaml(load_manifest()), yaml.CSafeLoader)

    assert manifest["schema_version"].startswith("2.")
    assert manifest["profiles"]
    for profile in manifest["profiles"]:
        assert re.fullmatch(r"[0-9a-f]{64}", profile["id"])
        assert all(isinstance(value, str) for value in profile["tags"].values())
        assert {"llm_engine", "precision", "profile", "tp", "pp", "feat_lora"} <= profile["tags"].keys()
        assert all("://" in file["uri"] for file in profile["workspace"]["files"].values())


def test_the_examples_belong_together() -> None:
    """The service uses the cache of the other file, its profile, and the image that filled it."""
    cache, service = (yaml.safe_load((EXAMPLES / name).read_text()) for name in ("nim-cache.yaml", "nim-service.yaml"))
    ngc, image = cache["spec"]["source"]["ngc"], service["spec"]["image"]

    assert service["spec"]["storage"]["nimCache"]["name"] == cache["metadata"]["name"]
    assert service["spec"]["storage"]["nimCache"]["profile"] in ngc["model"]["profiles"]
    assert ngc["modelPuller"] == f"{image['repository']}:{image['tag']}"
    assert cache["apiVersion"] == service["apiVersion"] == "apps.nvidia.com/v1alpha1"
