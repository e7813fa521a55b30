"""The chart's files agree with the rest of the repository: documents, version, sizes, commands, examples."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from config.environment import child_environment
from config.manifest import load_manifest
from launcher.cli import app
from tests.conftest import Product
from tests.helm.chart import CHART, EXAMPLES, NEWEST, ROOT, Renderer, cases, containers, pod_specs
from tests.helm.schemas import problems

SCRIPT = CHART / "files" / "check.py"


def test_generated_files_are_up_to_date() -> None:
    """The README's tables and the schema follow from values.yaml and values.schema.yaml."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "helm" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_every_value_is_explained() -> None:
    """Each value of values.yaml has its row in the README, except the parts of a default as a whole."""
    readme = (CHART / "README.md").read_text()
    whole = {"podSecurityContext", "containerSecurityContext", "resources", "download.resources", "engines.resources",
             "httpRoute.timeouts", "dashboard.labels"}  # fmt: skip

    def missing(values: dict[str, object], above: str = "") -> list[str]:
        found = []
        for name, value in values.items():
            path = f"{above}{name}"
            if isinstance(value, dict) and value and path not in whole:
                found += missing(value, f"{path}.")
            elif f"| `{path}` |" not in readme:
                found.append(path)
        return found

    assert missing(yaml.safe_load((CHART / "values.yaml").read_text())) == []


def test_chart_has_the_projects_version() -> None:
    """The image's default tag is the version of this repository."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


def test_model_sizes_are_the_manifests() -> None:
    """The sizes from which probes get their time are those of the profiles, rounded up to megabytes."""
    source = yaml.safe_load((ROOT / "config" / "profiles" / "gemma4.yaml").read_text())["checkpoints"]
    expected = {}
    for variant, checkpoints in source.items():
        sizes = {name: checkpoints[name]["approximate_size"] for name in ("bf16", "fp8", "nvfp4")}
        gguf = checkpoints["gguf"]
        sizes |= {
            name: gguf[name]["approximate_size"] + gguf["vision"]["approximate_size"] for name in ("q8_0", "q4_k_m")
        }
        expected[variant] = {name: -(-size // 1_000_000) for name, size in sizes.items()}

    assert yaml.safe_load((CHART / "files" / "model-sizes.yaml").read_text()) == expected


def test_examples_name_profiles_that_exist() -> None:
    """Nobody copies a name that the server does not know."""
    known = {profile.name for profile in load_manifest(None).profiles}
    used = {
        values["model"]["profile"] for values in cases().values() if values and values.get("model", {}).get("profile")
    }
    operator = yaml.safe_load((EXAMPLES / "nim-operator" / "nim-cache.yaml").read_text())

    assert used <= known
    assert set(operator["spec"]["source"]["ngc"]["model"]["profiles"]) <= known


@pytest.mark.parametrize("path", sorted((EXAMPLES / "nim-operator").glob("*.yaml")), ids=lambda path: path.stem)
def test_example_for_the_nim_operator_is_valid(path: Path) -> None:
    """The operator's own schemas take the examples."""
    assert problems(yaml.safe_load(path.read_text()), NEWEST) == []


def test_download_commands_are_ones_that_the_image_has(renderer: Renderer) -> None:
    """The chart's jobs and init containers run commands and options that the command line knows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commands = set()
    for values in cases().values():
        if "download" not in values:
            continue
        for _, pod in pod_specs(renderer.render(values).objects):
            commands |= {tuple(c["command"]) for c in containers(pod) if c["name"] in {"download-model", "wait-model"}}
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)

    assert len(commands) > 3
    for name, *options in commands:
        assert name in project["scripts"]
        command = group.get_command(group.make_context("gemma4-nim", ["doctor"]), name)
        assert command is not None
        assert command.make_context(name, list(options)).params


def _check(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    environment = {**child_environment({}), **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90, env=environment)


@pytest.mark.parametrize("test", ["models", "chat", "stream", "picture"])
def test_helm_test_passes_on_a_running_server(product: Product, test: str) -> None:
    """What ``helm test`` runs in the cluster is run here against the real server."""
    done = _check(test, product.base_url, "60")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith({"models": "serves ", "stream": "streamed "}.get(test, "answered: "))


def test_helm_test_tells_a_wrong_model(product: Product) -> None:
    """The value model.name is held to what the server tells."""
    done = _check("models", product.base_url, "60", "no-such-model")

    assert done.returncode == 1
    assert "model.name is no-such-model, but the server has: " in done.stderr


def test_helm_test_tells_that_nobody_is_there() -> None:
    """A server that cannot be reached is one line, after the time that was given."""
    done = _check("chat", "http://127.0.0.1:9", "0")

    assert done.returncode == 1
    assert "http://127.0.0.1:9/v1/models cannot be reached" in done.stderr
