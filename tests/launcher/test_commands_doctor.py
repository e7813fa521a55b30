"""``doctor``: what stops a start is found, each with what repairs it, and the status is that of the start."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.manifest import FileEntry
from launcher.commands.doctor.findings import Finding, Status
from launcher.commands.doctor.machine_checks import check_gpus, check_processor
from launcher.errors import ExitCode
from tests.fakes import console
from tests.fakes.file_server import file_server
from tests.fakes.manifests import write_manifest
from tests.fakes.measuring import best
from tests.fakes.processes import free_port
from tests.launcher import systems

ALL_ENGINES = frozenset({"llama_cpp", "vllm", "tensorrt_llm"})


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Settings with which a start works."""
    return {"NIM_CACHE_PATH": str(tmp_path / "cache"), "NIM_SERVER_PORT": str(free_port())}


def _doctor(variables: dict[str, str]) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Return the status, and the findings by what was looked at."""
    done = console.run("gemma4-nim", "doctor", "--json", variables=variables)
    assert "Traceback" not in done.stderr, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["ok"] == (done.returncode == ExitCode.OK)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in record["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found


def test_all_is_well(variables: dict[str, str]) -> None:
    """On a machine where the demo starts, everything is looked at and nothing is in the way."""
    status, found = _doctor(variables)

    assert status == ExitCode.OK
    wanted = {
        "settings", "port", "processor", "engine", "model", "memory", "files", "cache", "shared memory", "open files",
        "temporary files", "clock", "network",
    }  # fmt: skip
    assert wanted <= set(found)
    assert not [one for ones in found.values() for one in ones if one["status"] == "failure"]


def test_text_for_people(variables: dict[str, str]) -> None:
    """One line per finding with a mark; --quiet leaves out what is well; no colours through a pipe."""
    full = console.run("gemma4-nim", "doctor", variables=variables)
    quiet = console.run("gemma4-nim", "doctor", "--quiet", variables=variables | {"NIM_FOO": "1"})

    assert "✓ port" in full.stdout
    assert "a start would work" in full.stdout
    assert "\x1b" not in full.stdout
    assert "✓" not in quiet.stdout
    assert "! settings" in quiet.stdout
    assert "NIM_FOO" in quiet.stdout
    assert quiet.returncode == ExitCode.OK


def test_bad_settings_are_found_and_the_rest_is_still_looked_at(variables: dict[str, str]) -> None:
    """A value out of range is a failure with the start's status; port, memory and the others are told all the same."""
    status, found = _doctor(variables | {"NIM_MAX_NUM_SEQS": "0"})

    assert status == ExitCode.BAD_SETTINGS
    assert "NIM_MAX_NUM_SEQS" in found["settings"][0]["what"]
    assert {"engine", "cache", "memory"} <= set(found)


def test_files_that_guard_the_port_are_read_as_by_a_start(variables: dict[str, str]) -> None:
    """A certificate that is not there stops a start, and a setting without effect is doubted; all else is told."""
    tls = {"NIM_SSL_MODE": "tls", "NIM_SSL_CERTS_PATH": "/absent.pem", "NIM_SSL_KEY_PATH": "/absent.key"}
    status, found = _doctor(variables | tls)
    assert status == ExitCode.BAD_SETTINGS
    assert "NIM_SSL_CERTS_PATH=/absent.pem" in found["settings"][0]["what"]
    assert found["port"][0]["status"] == "ok"
    status, found = _doctor(variables | {"NIM_TRITON_PYTHON": "/absent"})
    assert status == ExitCode.OK
    assert "NIM_TRITON_PYTHON has no effect" in found["settings"][0]["what"]


def test_taken_port_is_found(variables: dict[str, str]) -> None:
    """A port in use has the status that a start would end with, and the variable that helps."""
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        status, found = _doctor(variables | {"NIM_SERVER_PORT": str(holder.getsockname()[1])})

    assert status == ExitCode.PORT_UNAVAILABLE
    assert "NIM_SERVER_PORT" in found["port"][0]["remedy"]


def test_missing_model_is_found(variables: dict[str, str], tmp_path: Path) -> None:
    """A path to nothing is named."""
    status, found = _doctor(variables | {"NIM_MODEL_PATH": str(tmp_path / "absent.gguf")})

    assert status == ExitCode.CANNOT_START
    assert "absent.gguf does not exist" in found["model"][0]["what"]


def _profile(tmp_path: Path, uri: str) -> dict[str, str]:
    path = tmp_path / "manifest.yaml"
    write_manifest(path, ({}, {"model.gguf": FileEntry(uri=uri, size=1_000_000)}))
    return {"NIM_MANIFEST_PATH": str(path), "NIM_MAX_MODEL_LEN": "2048", "NIM_MAX_NUM_SEQS": "1"}


def test_download_is_announced_and_its_way_looked_at(variables: dict[str, str], tmp_path: Path) -> None:
    """Files that are to come are told, and a host that does not answer is a failure worth a retry."""
    port = free_port()
    status, found = _doctor(variables | _profile(tmp_path, f"http://127.0.0.1:{port}/model.gguf"))

    assert status == ExitCode.DOWNLOAD_FAILED
    assert "will be downloaded" in found["files"][0]["what"]
    assert f"127.0.0.1:{port} cannot be reached" in found["network"][0]["what"]
    assert "NIM_REPOSITORY_OVERRIDE" in found["network"][0]["remedy"]


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def test_proxy_is_what_is_connected_to(variables: dict[str, str], tmp_path: Path, open_port: int) -> None:
    """With a proxy set, its connection counts and not the source's, which only the proxy can reach."""
    proxy = {"HTTP_PROXY": f"http://127.0.0.1:{open_port}"}
    status, found = _doctor(variables | _profile(tmp_path, "http://models.invalid/model.gguf") | proxy)

    assert status == ExitCode.OK
    assert f"models.invalid can be reached through the proxy 127.0.0.1:{open_port}" in found["network"][0]["what"]


def test_model_by_its_address_is_looked_for(variables: dict[str, str], tmp_path: Path) -> None:
    """A model that is named by an address is asked for there, and once it is in the cache nobody is."""
    (tmp_path / "model.gguf").write_bytes(b"x" * 1000)
    with file_server(tmp_path) as server:
        named = variables | {"NIM_MODEL_PATH": f"{server.url}/model.gguf"}
        before = _doctor(named)
        fetched = console.run("download-to-cache", "--model-uri", f"{server.url}/model.gguf", variables=variables)
    after = _doctor(named)

    assert fetched.returncode == ExitCode.OK, fetched.stderr
    assert "can be reached" in before[1]["network"][0]["what"]
    assert (before[0], after[0]) == (ExitCode.OK, ExitCode.OK)
    assert "nothing has to be downloaded" in after[1]["network"][0]["what"]


def test_offline_without_the_files_is_found(variables: dict[str, str], tmp_path: Path) -> None:
    """Offline, files that the cache lacks stop the start; no connection is tried."""
    offline = {"NIM_OFFLINE": "1"}
    status, found = _doctor(variables | _profile(tmp_path, "http://127.0.0.1:9/model.gguf") | offline)

    assert status == ExitCode.NOT_FOUND
    assert found["files"][0]["status"] == "failure"
    assert found["network"][0]["status"] == "ok"


def test_unusable_cache_counts_only_where_it_is_written(variables: dict[str, str], tmp_path: Path) -> None:
    """A cache that is a file stops a start that downloads; for the demo model it is worth a note."""
    file = tmp_path / "file"
    file.touch()
    unusable = variables | {"NIM_CACHE_PATH": str(file)}
    downloads, found = _doctor(unusable | _profile(tmp_path, "http://127.0.0.1:9/model.gguf"))
    demo, noted = _doctor(unusable)

    assert downloads == ExitCode.CACHE_NOT_WRITABLE
    assert any(one["status"] == "failure" for one in found["cache"])
    assert demo == ExitCode.OK
    assert {one["status"] for one in noted["cache"]} == {"note"}


def test_few_open_files_are_found(variables: dict[str, str]) -> None:
    """A limit that leaves no room for clients is a failure, with the command that raises it."""
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 128; exec {console.script('gemma4-nim')} doctor --json"],
        capture_output=True, text=True, env=console.environment(variables), timeout=console.TIMEOUT_S, check=False,
    )  # fmt: skip
    found = [one for one in json.loads(done.stdout)["findings"] if one["check"] == "open files"]

    assert done.returncode == ExitCode.CANNOT_START
    assert "only 128 files" in found[0]["what"]
    assert "ulimit -n" in found[0]["remedy"]


def test_long_temporary_folder_is_found(variables: dict[str, str], tmp_path: Path) -> None:
    """A folder whose name leaves no room for the socket's is a failure that a start would meet."""
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    folder.mkdir(parents=True)
    status, found = _doctor(variables | {"TMPDIR": str(folder)})

    assert status == ExitCode.CANNOT_START
    assert "TMPDIR" in found["temporary files"][0]["remedy"]


@pytest.mark.parametrize("name", systems.names())
def test_every_fault_of_a_system_is_told_with_its_remedy(name: str) -> None:
    """Each problem that detection finds, of the system or of a GPU, is a finding with its remedy."""
    system = systems.load(name)
    found = list(check_gpus(system, ALL_ENGINES))
    problems = [*system.problems, *(gpu.problem for gpu in system.gpus if gpu.problem is not None)]

    assert found
    for problem in problems:
        assert any(problem.what in one.what and one.remedy == problem.remedy for one in found), problem.code
    assert all(one.remedy for one in found if one.status is Status.WARNING)


def test_gpus_do_not_matter_to_the_processors_engine() -> None:
    """Where only the CPU engine is installed, a broken driver is a note and not a warning."""
    system = systems.load("no-driver")
    notes = {one.status for one in check_gpus(system, frozenset({"llama_cpp"}))}
    warnings = {one.status for one in check_gpus(system, ALL_ENGINES)}

    assert Status.WARNING not in notes
    assert Status.WARNING in warnings or not system.problems


def test_processor_without_its_instructions_is_a_failure() -> None:
    """Without AVX2 the CPU engine cannot run."""
    system = replace(systems.load("none"), cpu_features=frozenset({"sse2"}))
    (found,) = check_processor(system)

    assert isinstance(found, Finding)
    assert found.status is Status.FAILURE
    assert found.code == ExitCode.NO_USABLE_HARDWARE


def test_takes_little_time(variables: dict[str, str]) -> None:
    """All checks of a healthy machine take less than a second and a half of processor time."""
    assert best(lambda: console.cpu_seconds("gemma4-nim", "doctor", variables=variables), below=1.5) < 1.5
