"""``nim-serve`` with a profile: chosen, downloaded while ``live`` answers, served; and again without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from config.environment import load_settings
from config.manifest import load_manifest
from launcher.commands.choice import Scenery, accepted, profile_plan, wants_profile
from launcher.errors import ExitCode, LaunchError
from tests.fakes import console
from tests.fakes.file_server import FileServer, file_server
from tests.fakes.manifests import file_entry, write_manifest
from tests.fakes.processes import ServerProcess, free_port
from tests.launcher import systems

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"
NAME = "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency"


@dataclass
class Place:
    """A source that has the demo model's files as a profile, and an empty cache."""

    server: FileServer
    variables: dict[str, str]
    profile: str


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with file_server(DEMO) as server:
        files = {name: file_entry(server.url, DEMO / name) for name in ("model.gguf", "mmproj.gguf", "tokenizer.json")}
        manifest = tmp_path / "manifest.yaml"
        (profile,) = write_manifest(manifest, ({}, files))
        variables = {
            "NIM_MANIFEST_PATH": str(manifest),
            "NIM_CACHE_PATH": str(tmp_path / "cache"),
            "NIM_MAX_MODEL_LEN": "2048",
            "NIM_MAX_NUM_SEQS": "2",
        }
        yield Place(server, variables, profile)


def _serve(variables: dict[str, str], log: Path) -> ServerProcess:
    return ServerProcess([console.script("nim-serve")], free_port(), log, variables)


def _ask(base_url: str) -> str:
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    answer = requests.post(f"{base_url}/v1/chat/completions", json=body, timeout=60).json()
    return str(answer["choices"][0]["message"]["content"])


def test_profile_is_downloaded_and_served_also_offline(place: Place, tmp_path: Path) -> None:
    """The first start fetches the profile's files, the second has them; both answer, under the profile's names."""
    with _serve(place.variables, tmp_path / "first.log") as server:
        assert "Paris" in _ask(server.base_url)
        names = [model["id"] for model in requests.get(f"{server.base_url}/v1/models", timeout=60).json()["data"]]
        log = server.log()
    asked = len(place.server.paths)
    with _serve(place.variables | {"NIM_OFFLINE": "1"}, tmp_path / "second.log") as server:
        assert "Paris" in _ask(server.base_url)

    assert names[0] == "google/gemma-4-26b-a4b-it"
    assert f"{place.profile}  ({NAME})" in log
    assert asked >= 3
    assert len(place.server.paths) == asked


def test_dry_run_downloads_nothing(place: Place) -> None:
    """--dry-run shows the profile and what it takes, and asks nobody."""
    done = console.run("nim-serve", "--dry-run", "--json", variables=place.variables)
    text = console.run("nim-serve", "--dry-run", "--profile", place.profile[:8], variables=place.variables)
    record = json.loads(done.stdout)

    assert record["profile"] == {"id": place.profile, "name": NAME}
    assert record["engine"]["context_tokens"] == 2048
    assert record["engine"]["max_sequences"] == 2
    assert record["memory_bytes"]["total"] > 0
    assert "NIM_MODEL_PROFILE asks for it" in text.stdout
    assert not place.server.paths


def test_failed_download_ends_the_start(place: Place) -> None:
    """A start whose files cannot be had ends with the download's own status."""
    offline = console.run("nim-serve", "--offline", variables=place.variables | _port())
    cache = {"NIM_CACHE_PATH": place.variables["NIM_CACHE_PATH"]}
    absent = console.run("nim-serve", f"{place.server.url}/absent.gguf", variables=cache | _port())

    console.fails_well(offline, ExitCode.NOT_FOUND, "model.gguf", "download-to-cache")
    console.fails_well(absent, ExitCode.NOT_FOUND, "absent.gguf")


def _port() -> dict[str, str]:
    return {"NIM_SERVER_PORT": str(free_port()), "NIM_SERVER_HOST": "127.0.0.1"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--profile", "vllm-26b-a4b-fp8"], ExitCode.BAD_SETTINGS, "did you mean"),
        (["--tags-selector", "precision=fp16"], ExitCode.BAD_SETTINGS, "no profile has this value"),
        (["--profile", "vllm-26b-a4b-bf16-tp1-pp1-latency"], ExitCode.NO_USABLE_HARDWARE, "not in this image"),
        (["--model-variant", "31b", "--max-model-len", "999999"], ExitCode.BAD_SETTINGS, "262144"),
        (["gemma", "another"], ExitCode.BAD_SETTINGS, "one word too many"),
    ],
)
def test_impossible_wishes_are_refused(arguments: list[str], code: ExitCode, words: str) -> None:
    """A profile that does not exist, or cannot run here, ends the start with a reason and what to do."""
    console.fails_well(console.run("nim-serve", "--dry-run", *arguments), code, words)


def test_settings_file_and_options_are_equal(tmp_path: Path) -> None:
    """A key of the file, a variable and an option say the same thing; the option wins."""
    settings = tmp_path / "settings.yaml"
    settings.write_text("server: {port: 9001}\nmodel: {max_model_len: 1024}\n")
    options = ("--dry-run", "--json", "--config-file", str(settings))
    from_file = json.loads(console.run("nim-run", *options).stdout)
    on_top = json.loads(console.run("gemma4-nim", "serve", *options, "--port", "9002").stdout)

    assert (from_file["server"]["port"], from_file["engine"]["context_tokens"]) == (9001, 1024)
    assert (on_top["server"]["port"], on_top["engine"]["context_tokens"]) == (9002, 1024)


@pytest.mark.parametrize(
    ("system", "engines", "variables", "wanted"),
    [
        ("none", "llama_cpp", {}, False),
        ("h100-sxm-1", "llama_cpp", {}, False),
        ("h100-sxm-1", "llama_cpp vllm", {}, True),
        ("gpu-lost-only", "llama_cpp vllm", {}, True),
        ("none", "llama_cpp", {"NIM_MODEL_VARIANT": "31b"}, True),
        ("none", "llama_cpp", {"NIM_TAGS_SELECTOR": "precision=q8_0"}, True),
        ("none", "llama_cpp", {"NIM_MODEL_PROFILE": "demo-dense"}, False),
        ("h100-sxm-1", "vllm", {"NIM_MODEL_PROFILE": "demo-dense"}, False),
        ("h100-sxm-1", "vllm", {"NIM_MODEL_PATH": "/models/mine.gguf"}, False),
        ("h100-sxm-1", "vllm", {"NIM_MODEL_PATH": "hf://team/model"}, False),
    ],
)
def test_when_a_profile_is_served(system: str, engines: str, variables: dict[str, str], wanted: bool) -> None:
    """Profiles come into play when they are spoken of, or where an engine for GPUs is installed; else the demo does."""
    loaded = load_settings(environ=variables)
    scenery = Scenery(loaded, systems.load(system), load_manifest(), frozenset(engines.split()))

    assert wants_profile(scenery) is wanted


@pytest.mark.parametrize(
    ("system", "code"), [("gpu-lost-only", ExitCode.HARDWARE_FAULT), ("none", ExitCode.NO_USABLE_HARDWARE)]
)
def test_refused_hardware_has_its_status(system: str, code: ExitCode) -> None:
    """Where only an engine for GPUs is installed, a broken GPU is a fault of hardware, no GPU is not."""
    scenery = Scenery(load_settings(environ={}), systems.load(system), load_manifest(), frozenset({"vllm"}))
    with pytest.raises(LaunchError) as raised:
        accepted(profile_plan(scenery))

    assert raised.value.code == code
    assert raised.value.remedy
