"""``gemma4-nim`` as its user runs it: real processes, exit codes, and one clear line on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from launcher.errors import ExitCode
from tests.conftest import Product
from tests.fakes import console
from tests.fakes.gguf_files import gemma4_values, write_gguf
from tests.fakes.processes import ServerProcess, free_port, is_running, wait_until

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"
TIMEOUT_S = 250


def _run(*arguments: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return console.run("gemma4-nim", *arguments, variables=variables)


def _the_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("gemma4-nim: ")
    return lines[0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A header that can be planned for; it cannot be loaded."""
    return write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values())


def test_bad_variable_ends_with_its_exit_code() -> None:
    """A value out of range: the variable is named."""
    done = _run("serve", variables={"NIM_SERVER_PORT": "abc"})

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "NIM_SERVER_PORT='abc'" in _the_line(done)


def test_bad_option_is_checked_like_its_variable() -> None:
    """--port has the range of NIM_SERVER_PORT."""
    done = _run("serve", "--port", "99999")

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "NIM_SERVER_PORT='99999'" in _the_line(done)


def test_unknown_option_ends_with_the_same_exit_code() -> None:
    """A misspelt option is a bad setting, too."""
    done = _run("serve", "--prot", "1")

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "--prot" in done.stderr


def test_missing_model_ends_with_its_exit_code(tmp_path: Path) -> None:
    """A path to nothing cannot start, and the path is named."""
    done = _run("serve", "--model-path", str(tmp_path / "absent.gguf"))

    assert done.returncode == ExitCode.CANNOT_START
    assert "absent.gguf does not exist" in _the_line(done)


def test_other_model_ends_with_its_exit_code(tmp_path: Path) -> None:
    """A Llama cannot start, and it is called what it is."""
    path = write_gguf(tmp_path / "llama.gguf", "llama")

    done = _run("serve", "--model-path", str(path))

    assert done.returncode == ExitCode.CANNOT_START
    assert "is not a Gemma 4: general.architecture is llama" in _the_line(done)


def test_too_little_memory_ends_with_its_exit_code(tmp_path: Path) -> None:
    """A model larger than any memory: nothing here can run it; it says what is needed and what there is."""
    path = write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values())
    with path.open("ab") as file:
        file.truncate(2**43)  # a hole: it takes no space on disk

    done = _run("serve", "--model-path", str(path))

    assert done.returncode == ExitCode.NO_USABLE_HARDWARE
    assert "too little memory" in _the_line(done)


def test_taken_port_ends_with_its_exit_code(model: Path) -> None:
    """A port in use: the port and the variable are named."""
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = _run("serve", "--port", port, "--model-path", str(model))

    assert done.returncode == ExitCode.PORT_UNAVAILABLE
    line = done.stderr.splitlines()[-1]
    assert f"port {port} is taken" in line
    assert "NIM_SERVER_PORT" in line


def test_strict_settings_refuse_what_has_no_effect(model: Path) -> None:
    """NIM_STRICT_CONFIG=1 turns a warning into a bad setting."""
    variables = {"NIM_SERVER_PROT": "1", "NIM_MODEL_PATH": str(model)}
    relaxed = _run("serve", "--dry-run", variables=variables)
    strict = _run("serve", "--dry-run", variables=variables | {"NIM_STRICT_CONFIG": "1"})

    assert relaxed.returncode == ExitCode.OK
    assert "did you mean NIM_SERVER_PORT?" in relaxed.stderr
    assert strict.returncode == ExitCode.BAD_SETTINGS


def test_dry_run_prints_the_plan_as_json(model: Path) -> None:
    """--dry-run --json is for programs: one JSON document on standard output, and nothing is started."""
    done = _run("serve", "--dry-run", "--json", "--port", "9123", variables={"NIM_MODEL_PATH": str(model)})
    plan = json.loads(done.stdout)

    assert done.returncode == ExitCode.OK
    assert plan["server"] == {"host": "0.0.0.0", "port": 9123}
    assert plan["model"]["weights"] == str(model)
    assert plan["engine"]["context_tokens"] == 8192
    assert plan["memory_bytes"]["total"] > plan["memory_bytes"]["weights"] > 0


def test_dry_run_prints_the_plan_for_people(model: Path) -> None:
    """Without --json the plan is text without colour codes when nobody watches, and paths are not wrapped."""
    done = _run("serve", "--dry-run", "--model-path", str(model))

    assert str(model) in done.stdout
    assert "Tiny" in done.stdout
    assert "\x1b" not in done.stdout


def test_damaged_model_ends_with_its_exit_code(model: Path, tmp_path: Path) -> None:
    """A file whose header is right but whose tensors are missing fails in the engine, without a traceback."""
    (tmp_path / "tokenizer.json").write_bytes((DEMO / "tokenizer.json").read_bytes())

    done = _run("serve", "--port", str(free_port()), "--model-path", str(model))

    assert done.returncode == ExitCode.CANNOT_START
    assert "the engine could not load the model" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@dataclass
class Served:
    """A launcher that serves the demo model."""

    server: ServerProcess

    def children(self) -> dict[str, int]:
        """Return the process ids of the API and the engine."""
        assert self.server.process is not None
        pid = self.server.process.pid
        found: dict[str, int] = {}
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            # One may have just ended, or not have become another program yet.
            with contextlib.suppress(OSError):
                arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if arguments[1:2] == [b"-m"]:
                    found[arguments[2].decode()] = int(child)
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "launcher", "serve"]
    with ServerProcess(command, free_port(), tmp_path / "log", {"NIM_MODEL_PATH": str(DEMO)}) as server:
        yield Served(server)


def _check_stop(served: Served, number: signal.Signals) -> None:
    """See that a signal ends everything: exit code 0, and neither process nor run folder is left behind."""
    children = served.children()
    assert set(children) == {"api", "engine"}
    arguments = Path(f"/proc/{children['engine']}/cmdline").read_bytes().split(b"\0")
    run_folder = Path(arguments[4].decode()).parent
    assert run_folder.stat().st_mode & 0o777 == 0o700
    assert served.server.process is not None

    served.server.process.send_signal(number)

    assert served.server.process.wait(TIMEOUT_S) == ExitCode.OK
    assert not any(is_running(pid) for pid in children.values())
    assert not run_folder.exists()
    assert "Traceback" not in served.server.log()


def test_sigterm_stops_everything(served: Served) -> None:
    """As Kubernetes and systemd end a server."""
    _check_stop(served, signal.SIGTERM)


def test_killed_engine_is_back_and_ctrl_c_stops_everything(served: Served) -> None:
    """After kill -9 on the engine, ready turns 503, live stays 200, and a new engine serves; it is stopped as well."""
    engine = served.children()["engine"]
    os.kill(engine, signal.SIGKILL)

    wait_until(lambda: not served.server.is_ready() or served.children().get("engine") != engine, what="the loss")
    assert requests.get(f"{served.server.base_url}/v1/health/live", timeout=60).ok
    wait_until(lambda: served.children().get("engine", engine) != engine, what="another engine")
    wait_until(served.server.is_ready, what="ready again")
    _check_stop(served, signal.SIGINT)


def test_killed_launcher_leaves_nothing_behind(served: Served) -> None:
    """Even kill -9 on the launcher ends the API and the engine."""
    children = served.children()
    assert served.server.process is not None
    served.server.process.kill()

    wait_until(lambda: not any(is_running(pid) for pid in children.values()), what="children gone")


def test_ready_line_shows_a_request_that_works(product: Product) -> None:
    """What the launcher prints can be pasted: the address answers, and the model has the name shown."""
    assert f"ready on {product.base_url}" in product.log()
    models = requests.get(f"{product.base_url}/v1/models", timeout=60).json()
    name = models["data"][0]["id"]

    wait_until(lambda: f'"model": "{name}"' in product.log(), what="the request")
