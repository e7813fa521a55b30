"""What carries the engine: the choice, what is refused before anything starts, and what plan and doctor say of it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from config.environment import load_settings
from config.settings_transport import TransportSettings
from launcher.errors import ExitCode, LaunchError
from launcher.triton import EMBEDDED, engine_program, find_triton
from tests.conftest import DEMO, StartProduct
from tests.fakes import console
from tests.fakes.processes import children_of, free_port, is_running, wait_until

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "triton_client.py"
TRITON = {"NIM_ENGINE_TRANSPORT": "triton"}


@pytest.fixture
def make_interpreter(tmp_path: Path):
    """Return what makes a program that stands for an interpreter: it answers the question for Triton."""

    def make(answer: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def _settings(**changes: object) -> TransportSettings:
    return TransportSettings.model_validate({"kind": "triton", **changes})


def test_embedded_is_the_default(tmp_path: Path) -> None:
    """Without a word the engine is our own server, and the plan says which setting would take Triton."""
    assert engine_program(TransportSettings()) == EMBEDDED
    done = console.run("gemma4-nim", "serve", "--dry-run", variables={"NIM_CACHE_PATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "embedded" in done.stdout
    assert "NIM_ENGINE_TRANSPORT=triton" in done.stdout


def test_the_command_of_triton(tmp_path: Path) -> None:
    """The named interpreter runs the engine in Triton, with the addresses that were asked for; links stay links."""
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    given = _settings(triton_python=link, triton_metrics="127.0.0.1:8002", triton_grpc="127.0.0.1:8001")
    found = engine_program(given)
    assert found.command == (str(link), "-m", "engine.triton", "--metrics", "127.0.0.1:8002")
    assert found.endpoint == "127.0.0.1:8001"
    alone = engine_program(_settings())
    assert (alone.command[0], alone.endpoint) == (sys.executable, None)


@pytest.mark.parametrize("command", [("serve",), ("serve", "--dry-run")])
@pytest.mark.skipif(importlib.util.find_spec("pytriton") is not None, reason="this environment holds Triton")
def test_without_triton_nothing_is_started(tmp_path: Path, command: tuple[str, ...]) -> None:
    """The start is refused at once, with what to set; no phase is entered."""
    variables = TRITON | {"NIM_CACHE_PATH": str(tmp_path), "NIM_SERVER_PORT": str(free_port())}
    done = console.run("gemma4-nim", *command, variables=variables)
    console.fails_well(done, ExitCode.CANNOT_START, "Triton", "NIM_TRITON_PYTHON", "NIM_ENGINE_TRANSPORT=embedded")
    assert done.stdout == ""


def test_what_the_interpreter_says_is_passed_on(make_interpreter) -> None:
    """Its last line is the reason; a missing module is put in words; what it prints when all is well is the server."""
    with pytest.raises(LaunchError, match=r"NumPy 2\.5") as caught:
        find_triton(_settings(triton_python=make_interpreter("echo 'too new: NumPy 2.5' >&2; exit 1")))
    assert caught.value.code is ExitCode.CANNOT_START
    missing = make_interpreter("echo \"python: No module named 'engine'\" >&2; exit 1")
    with pytest.raises(LaunchError, match=r"does not find this program.*engine"):
        find_triton(_settings(triton_python=missing))
    good = make_interpreter("echo /opt/somewhere/tritonserver")
    assert find_triton(_settings(triton_python=good)) == Path("/opt/somewhere/tritonserver")


@pytest.mark.parametrize("content", [None, "no program", "#!/nowhere/at/all\n"])
def test_an_interpreter_that_is_none(tmp_path: Path, content: str | None) -> None:
    """A path that is missing, or nothing that can be run, is a bad setting that is named."""
    path = tmp_path / "python"
    if content is not None:
        path.write_text(content)
    if content is not None and content.startswith("#!"):
        path.chmod(0o755)
    with pytest.raises(LaunchError, match=f"NIM_TRITON_PYTHON='{path}'") as caught:
        find_triton(_settings(triton_python=path))
    assert caught.value.code is ExitCode.BAD_SETTINGS


def test_plan_and_doctor_name_triton(tmp_path: Path, make_interpreter) -> None:
    """Where Triton can carry the engine, the plan says so and why, and doctor which server it is."""
    python = make_interpreter("echo /opt/somewhere/tritonserver")
    variables = TRITON | {"NIM_TRITON_PYTHON": str(python), "NIM_CACHE_PATH": str(tmp_path)}
    done = console.run("gemma4-nim", "serve", "--dry-run", "--json", variables=variables)
    transport = json.loads(done.stdout)["engine"]["transport"]
    assert transport == {"kind": "triton", "why": "NIM_ENGINE_TRANSPORT=triton"}
    findings = _doctor(variables)
    assert findings["transport"]["status"] == "ok"
    assert "/opt/somewhere/tritonserver" in findings["transport"]["what"]


def test_doctor_finds_that_triton_is_missing(tmp_path: Path) -> None:
    """It is a failure with the status of the start."""
    variables = TRITON | {"NIM_TRITON_PYTHON": "/nowhere/python", "NIM_CACHE_PATH": str(tmp_path)}
    findings = _doctor(variables, ExitCode.BAD_SETTINGS)
    assert findings["transport"]["status"] == "failure"
    assert "/nowhere/python" in findings["transport"]["what"]


def _doctor(variables: dict[str, str], status: int = 0) -> dict[str, dict[str, str]]:
    done = console.run("gemma4-nim", "doctor", "--json", variables=variables | {"NIM_SERVER_PORT": str(free_port())})
    assert done.returncode == status, done.stdout + done.stderr
    return {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.parametrize("address", ["8002", "host", "host:0", "host:70000", "a b:1", ":80", "http://host:80"])
def test_addresses_of_triton_are_checked(address: str) -> None:
    """Where Triton is to serve HTTP or metrics has to be host and port."""
    with pytest.raises(Exception, match="NIM_TRITON_METRICS_ADDRESS"):
        load_settings(environ={"NIM_TRITON_METRICS_ADDRESS": address})


@pytest.mark.slow
class TestWithTheRealServer:
    """The product with the real ``tritonserver``; crash, restart and requests are tests of the API's."""

    def test_sigterm_leaves_nothing(self, start_product: StartProduct, triton_python: Path) -> None:
        """After SIGTERM the status is 0, and Triton and the model are gone; the GPUs that are shown reach the model."""
        variables = {"NIM_TRITON_PYTHON": str(triton_python), "CUDA_VISIBLE_DEVICES": "GPU-3,GPU-1"}
        with start_product(**TRITON, **variables) as product:
            assert product.process is not None
            (engine,) = product.children("engine")
            (server,) = children_of(engine)
            (model,) = children_of(server)
            assert b"CUDA_VISIBLE_DEVICES=GPU-3,GPU-1" in Path(f"/proc/{model}/environ").read_bytes().split(b"\0")
            product.process.send_signal(signal.SIGTERM)
            assert product.process.wait(100) == 0
            wait_until(lambda: not is_running(server) and not is_running(model), what="Triton to be gone")

    def test_a_killed_model_is_a_new_engine(self, start_product: StartProduct, triton_python: Path) -> None:
        """When the process that holds the model dies, ready is 503 with its phase, and 200 with another engine."""
        with start_product(**TRITON, NIM_TRITON_PYTHON=str(triton_python)) as product:
            (engine,) = product.children("engine")
            (model,) = children_of(children_of(engine)[0])
            os.kill(model, signal.SIGKILL)
            wait_until(lambda: product.children("engine") not in ([], [engine]), what="another engine")
            wait_until(product.is_ready, what="ready again")
            assert "the process that runs the model has died" in product.log()

    def test_a_model_that_cannot_be_loaded_ends_the_start(self, triton_python: Path, tmp_path: Path) -> None:
        """The status and the line are those of the embedded engine."""
        variables = TRITON | {
            "NIM_TRITON_PYTHON": str(triton_python), "NIM_CACHE_PATH": str(tmp_path),
            "NIM_SERVER_PORT": str(free_port()), "NIM_MODEL_PATH": str(_broken_model(tmp_path)),
        }  # fmt: skip
        done = console.run("gemma4-nim", "serve", variables=variables)
        console.fails_well(done, ExitCode.CANNOT_START, "the engine could not load the model", "engine: ")

    def test_others_may_use_triton_beside_the_api(self, start_product: StartProduct, triton_python: Path) -> None:
        """Where it was asked to listen: the document's script by gRPC, health by HTTP, and its metrics."""
        grpc, http, metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
        given = {
            "NIM_TRITON_PYTHON": str(triton_python), "NIM_TRITON_GRPC_ADDRESS": grpc, "NIM_TRITON_HTTP_ADDRESS": http,
            "NIM_TRITON_METRICS_ADDRESS": metrics,
        }  # fmt: skip
        with start_product(**TRITON, **given) as product:
            done = subprocess.run(
                [sys.executable, str(SCRIPT), grpc, str(DEMO / "tokenizer.json")],
                capture_output=True, text=True, timeout=250, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert "Paris" in done.stdout
            assert "finish_reason: stop" in done.stdout
            assert requests.get(f"http://{http}/v2/models/gemma4/ready", timeout=60).ok
            answer = product.client.chat.completions.create(
                model="demo-moe", messages=[{"role": "user", "content": "What is 7 + 8?"}], temperature=0
            )
            assert "15" in str(answer.choices[0].message.content)
            wait_until(
                lambda: 'gemma4_requests_total{model="gemma4"} 2' in _text(f"http://{metrics}/metrics"),
                what="both requests among the metrics",
            )


def _text(url: str) -> str:
    return requests.get(url, timeout=60).text


def _broken_model(folder: Path) -> Path:
    """Write the demo model without its last half: the header is read by the launcher, the rest by the engine."""
    target = folder / "model.gguf"
    content = (DEMO / "model.gguf").read_bytes()
    target.write_bytes(content[: len(content) // 2])
    (folder / "tokenizer.json").write_bytes((DEMO / "tokenizer.json").read_bytes())
    return target
