"""What the images promise, as far as their recipe shows it; ``make image-test`` builds and runs them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.image import dockerfile

ROOT = Path(__file__).parents[2]
ARGUMENTS, STAGES = dockerfile.read(ROOT / "Dockerfile")
BY_NAME = {stage.name: stage for stage in STAGES}
TARGETS = ("cpu", "vllm", "tensorrt-llm")
GPU_VARIABLES = {"VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")


def test_the_images_are_there_and_cpu_is_what_a_build_makes() -> None:
    """A build without --target makes the image that runs everywhere."""
    assert set(TARGETS) <= BY_NAME.keys()
    assert STAGES[-1].name == "cpu"


def test_every_base_is_an_argument_with_a_version() -> None:
    """Nothing is built on a tag that means another image tomorrow without being named; each can be overridden."""
    for stage in STAGES:
        if stage.base in BY_NAME or stage.base == "scratch":
            continue
        found = re.fullmatch(r"\$\{([A-Z_]+)\}", stage.base)
        assert found is not None, stage.base
        assert re.search(r"(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})$", ARGUMENTS[found[1]])


def test_triton_is_not_older_than_what_may_be_used() -> None:
    """Releases before 26.08 are not taken, by default and by whoever overrides it."""
    found = re.search(r"tritonserver:(\d+)\.(\d+)-py3@", ARGUMENTS["TRITON_IMAGE"])
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (26, 8)


@pytest.mark.parametrize("target", TARGETS)
def test_it_starts_without_a_shell_and_without_root(target: str) -> None:
    """Entrypoint, command and health check are in exec form; the user is a number in group 0; SIGTERM stops it."""
    stage = BY_NAME[target]
    (entrypoint,), (check,) = stage.all("ENTRYPOINT"), stage.all("HEALTHCHECK")
    assert entrypoint.words == ["/opt/nim/.venv/bin/python", "-m", "launcher.entrypoint"]
    assert check.words == ["/opt/nim/.venv/bin/gemma4-nim", "health"]
    assert stage.all("CMD")[0].words == []
    assert stage.all("USER")[-1].value == "1000:0"
    assert stage.all("STOPSIGNAL")[0].value == "SIGTERM"
    assert stage.all("EXPOSE")[0].value == "8000"


@pytest.mark.parametrize("target", TARGETS)
def test_labels_and_version_are_told(target: str) -> None:
    """Labels are OCI's, and the default version is that of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stage = BY_NAME[target]
    assert f"VERSION={project['version']}" in [one.value for one in stage.all("ARG")]
    labels = re.findall(r"org\.opencontainers\.image\.([a-z.]+)=", stage.all("LABEL")[0].value)
    assert sorted(labels) == sorted(
        ["title", "description", "licenses", "base.name", "version", "revision", "created", "source"]
    )


@pytest.mark.parametrize("target", TARGETS)
def test_targets_are_set_up_alike(target: str) -> None:
    """What a stage cannot inherit stands in each; only what the engine needs differs."""
    same = ("WORKDIR", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD")
    reference, stage = BY_NAME["vllm"], BY_NAME[target]

    def settings(one: dockerfile.Stage) -> list[tuple[str, tuple[str, ...], str]]:
        return [(item.name, item.options, item.value) for item in one.instructions if item.name in same]

    def variables(one: dockerfile.Stage) -> set[str]:
        return set(one.all("ENV")[0].value.split())

    more = variables(reference) - variables(stage)
    own = variables(stage) - variables(reference)
    assert settings(stage) == settings(reference)
    assert [one.value for one in stage.all("ARG")[1:]] == [one.value for one in reference.all("ARG")[1:]]
    assert {one.partition("=")[0] for one in own} <= {"PATH"}
    assert {one.partition("=")[0] for one in more} - {"PATH"} <= GPU_VARIABLES


def test_no_secret_can_end_up_in_a_layer() -> None:
    """Keys come as secrets that are mounted for one step, never as arguments or variables."""
    for stage in STAGES:
        for one in (*stage.all("ARG"), *stage.all("ENV")):
            names = re.findall(r"([A-Za-z_][A-Za-z0-9_]*)=", one.value) or [one.value]
            assert not [name for name in names if SECRET.search(name.upper())], one.value
        for one in stage.all("RUN"):
            for name in re.findall(r"(\w+_(?:TOKEN|KEY)(?:_FILE)?)=", one.value):
                assert name.endswith("_FILE"), one.value
    assert not [name for name in ARGUMENTS if SECRET.search(name)]


def test_python_packages_come_from_the_lock_file() -> None:
    """Every installation from a registry demands hashes; what has none takes no index."""
    script = (ROOT / "docker" / "install-on-base.sh").read_text()
    commands = [one.value for stage in STAGES for one in stage.all("RUN")]
    installs = re.findall(r"pip install(.+?)(?=&&|$)", " ".join(commands))
    assert installs
    assert all("--require-hashes" in text or "--no-index" in text for text in installs)
    assert all(
        "--require-hashes" in text or "--no-index" in text for text in re.findall(r'"\$\{install\[@\]\}"(.+)', script)
    )


def test_only_what_is_named_is_sent_to_the_builder() -> None:
    """The ignore file keeps out everything that it does not name, and names what the Dockerfile copies."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert "*" in lines
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= kept
    assert {"LICENSE", "README.md", "pyproject.toml", "locks/runtime.txt", "docker"} <= kept
    assert not kept & {".git", "tests", ".venv"}


@pytest.mark.parametrize("service", ["cpu", "gpu"])
def test_compose_runs_it_closed(service: str) -> None:
    """Read-only, without capabilities, as the image's user, waiting longer for the end than requests may take."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    found = compose["services"][service]
    assert found["profiles"] == [service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["user"] == "1000:0"
    assert found["volumes"] == ["cache:/opt/nim/.cache"]
    assert found["build"]["target"] in BY_NAME
    assert int(found["stop_grace_period"].removesuffix("s")) > 30  # the default of NIM_SHUTDOWN_GRACE_SECONDS


@pytest.mark.parametrize("name", ["Dockerfile", "tests/image/stand_ins/Dockerfile"])
def test_hadolint_finds_nothing(name: str) -> None:
    """The recipes follow the rules of hadolint, every rule."""
    _lint("hadolint", name)


@pytest.mark.parametrize("name", ["docker/install-on-base.sh", ".ci/run"])
def test_shellcheck_finds_nothing(name: str) -> None:
    """The shell scripts follow the rules of shellcheck."""
    _lint("shellcheck", name)


def _lint(program: str, name: str) -> None:
    path = Path(sys.executable).with_name(program)
    if not path.is_file():
        pytest.skip(f"{program} is not installed beside {sys.executable}")
    done = subprocess.run([path, ROOT / name], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
