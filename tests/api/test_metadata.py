"""``/v1/metadata`` and its neighbours: NIM's shapes, with what is true of this installation."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from api.http.metadata_facts import public_url, short_name
from config.manifest import load_manifest, parse_manifest
from tests.api.conftest import MODEL, ScriptedServer
from tests.fakes.processes import ServerProcess, free_port

LICENCE = Path(__file__).parents[2] / "LICENSE"
PROFILE = "0f" * 32
MANIFEST = "schema_version: 2.0.0\nprofiles: []\n"


def _get(base_url: str, path: str) -> dict[str, Any]:
    response = requests.get(f"{base_url}{path}", timeout=60)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.fixture(scope="module")
def loading(scripted_server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an API process whose engine is not there yet, for a profile, with a manifest of the user's own."""
    folder = tmp_path_factory.mktemp("loading")
    (folder / "manifest.yaml").write_text(MANIFEST)
    runtime = json.loads(scripted_server.api_runtime.read_text()) | {
        "engine_endpoints": [f"unix:{folder / 'engine.sock'}"],
        "profile_id": PROFILE,
        "model_urls": [
            "hf://google/gemma-4-31B-it:main?file=a.gguf",
            "https://me:key@example.com/models/draft?token=x",
        ],
    }
    (folder / "api.json").write_text(json.dumps(runtime))
    command = [sys.executable, "-m", "api", "--runtime", str(folder / "api.json")]
    variables = {
        "NIM_MANIFEST_PATH": str(folder / "manifest.yaml"),
        "NIM_REPOSITORY_OVERRIDE": "https://me:secret@mirror.example.com/models",
    }
    with LiveProcess(command, free_port(), folder / "api.log", variables) as process:
        yield process.base_url


class LiveProcess(ServerProcess):
    """A server that is live and never gets ready."""

    def is_ready(self) -> bool:
        """Tell whether it answers."""
        try:
            return requests.get(f"{self.base_url}/v1/health/live", timeout=60).ok
        except requests.ConnectionError:
            return False


def test_version_is_the_package_s(server: ScriptedServer) -> None:
    """The release is that of the installed package, the API version that of the description of the routes."""
    described = _get(server.base_url, "/openapi.json")["openapi"]
    assert _get(server.base_url, "/v1/version") == {"release": version("gemma4-nim"), "api": described}


def test_licence_is_the_file(server: ScriptedServer) -> None:
    """Text, checksum and size are those of the licence file."""
    data = LICENCE.read_bytes()
    licence = _get(server.base_url, "/v1/license")

    assert licence["content"] == data.decode()
    assert licence["sha"] == hashlib.sha256(data).hexdigest()
    assert licence["size"] == len(data)
    assert Path(licence["path"]).read_bytes() == data
    assert licence.keys() == {"name", "path", "sha", "size", "url", "type", "content"}


def test_metadata_of_a_model_of_ones_own(server: ScriptedServer) -> None:
    """Without a profile there is no id, and the model has a name but no address."""
    metadata = _get(server.base_url, "/v1/metadata")

    assert metadata.keys() == {
        "assetInfo", "licenseInfo", "modelInfo", "repository_override", "version", "selectedModelProfileId",
    }  # fmt: skip
    assert metadata["modelInfo"] == [{"shortName": MODEL, "modelUrl": ""}]
    assert metadata["licenseInfo"] == _get(server.base_url, "/v1/license")
    assert (metadata["version"], metadata["selectedModelProfileId"]) == (version("gemma4-nim"), "")


def test_metadata_of_a_profile_while_it_loads(loading: str) -> None:
    """The profile and the origin of its files are told before the engine runs; keys in addresses are not."""
    assert requests.get(f"{loading}/v1/health/ready", timeout=60).status_code == 503
    metadata = _get(loading, "/v1/metadata")

    assert metadata["selectedModelProfileId"] == PROFILE
    assert metadata["modelInfo"] == [
        {"shortName": "google/gemma-4-31B-it:main", "modelUrl": "hf://google/gemma-4-31B-it:main"},
        {"shortName": "models/draft", "modelUrl": "https://example.com/models/draft"},
    ]
    assert metadata["assetInfo"] == ["hf://google/gemma-4-31B-it:main", "https://example.com/models/draft"]
    assert metadata["repository_override"] == "https://mirror.example.com/models"
    assert _get(loading, "/v1/version")["release"] == version("gemma4-nim")


def test_metrics_while_the_engine_is_away(loading: str) -> None:
    """The page is there, the engine is down, and its figures are absent."""
    text = requests.get(f"{loading}/metrics", timeout=60).text

    assert 'gemma4_nim_engine_up{engine="local"} 0.0' in text
    assert f'profile="{PROFILE}"' in text
    assert "num_requests_running" not in text


def test_manifest_is_the_whole_document(server: ScriptedServer, loading: str) -> None:
    """Our manifest is told as one YAML text that reads back; one of the user's own as it was written."""
    text = _get(server.base_url, "/v1/manifest")["manifest_file"]
    assert parse_manifest(yaml.load(text, Loader=yaml.CSafeLoader), "it") == load_manifest()

    assert _get(loading, "/v1/manifest") == {"manifest_file": MANIFEST}


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("hf://org/model:rev?file=a.gguf", "hf://org/model:rev", "org/model:rev"),
        ("ngc://nim/google/gemma:1.0", "ngc://nim/google/gemma:1.0", "google/gemma:1.0"),
        ("s3://bucket/model", "s3://bucket/model", "bucket/model"),
        ("https://user:pass@host/a/b?X-Amz-Signature=1", "https://host/a/b", "a/b"),
        ("/models/gemma", "/models/gemma", ""),
        ("", "", ""),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str, name: str) -> None:
    """User, password and query are left out."""
    assert (public_url(url), short_name(url)) == (shown, name)
