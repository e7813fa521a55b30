"""Every row of the table of exit codes in docs/operations.md, brought about with real processes."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from launcher.errors import ExitCode
from launcher.hardware.host_memory import control_groups
from tests.fakes import session_process
from tests.fakes.gguf_files import gemma4_values, write_gguf
from tests.fakes.processes import ServerProcess, free_port, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "checkpoints" / "demo-moe"
TIMEOUT_S = 250
LIMIT_BYTES = 256 * 2**20


def _run(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIM_")}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=ROOT,
        env=kept | dict(variables or {}),
    )  # fmt: skip


def _gemma(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return _run("-m", "launcher", *arguments, variables=variables)


def _ended(done: subprocess.CompletedProcess[str], code: ExitCode, text: str) -> None:
    """Check status and message; failures take one line, without a traceback."""
    assert done.returncode == code, done.stderr
    assert text in done.stderr.splitlines()[-1] or text in done.stdout
    assert "Traceback" not in done.stderr


class _Source(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names; ``/200`` claims to be larger than any disk."""

    def do_GET(self) -> None:
        status = int(self.path.split("/")[1])
        self.send_response(status)
        self.send_header("content-length", str(2**60) if status == 200 else "0")
        self.send_header("accept-ranges", "bytes")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - the name that the library looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def source() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Source)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_table_and_codes_are_the_same() -> None:
    """The table has one row for each code, and each is named by a test here."""
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    tested = set(re.findall(r"ExitCode\.([A-Z_]+)", Path(__file__).read_text()))

    assert [(int(code), name) for code, name in rows] == [(int(code), code.name) for code in ExitCode]
    assert {code.name for code in ExitCode} <= tested


def test_retry_column_agrees_with_the_code() -> None:
    """What the table says about starting again is what programs can ask the code."""
    text = (ROOT / "docs/operations.md").read_text()
    answers = dict(re.findall(r"^\| \d+ \| `([A-Z_]+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE))

    assert {code.name: code.is_worth_a_retry for code in ExitCode} == {
        name: answer in ("yes", "perhaps") for name, answer in answers.items()
    }


def test_fault_of_our_own() -> None:
    """1: whatever is not foreseen."""
    done = _run("-c", "from launcher.__main__ import _run; _run(lambda: 1 / 0)")

    assert done.returncode == ExitCode.INTERNAL
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "text"),
    [
        (("serve",), {"NIM_SERVER_PORT": "abc"}, "NIM_SERVER_PORT='abc'"),
        (("serve", "--port", "99999"), {}, "NIM_SERVER_PORT='99999' from --port"),
        (("serve",), {"NIM_SSL_MODE": "tls"}, "NIM_SSL_MODE=tls needs NIM_SSL_CERTS_PATH and NIM_SSL_KEY_PATH"),
        (("serve",), {"NIM_SERVER_PROT": "1", "NIM_STRICT_CONFIG": "1"}, "did you mean NIM_SERVER_PORT?"),
        (("serve", "--prot", "1"), {}, "--prot"),
    ],
)
def test_bad_settings(arguments: tuple[str, ...], variables: dict[str, str], text: str) -> None:
    """64: the variable or the option is named."""
    _ended(_gemma(*arguments, variables=variables), ExitCode.BAD_SETTINGS, text)


def test_settings_that_only_the_api_can_judge(tmp_path: Path) -> None:
    """64 also when it is the API process that refuses them."""
    variables = {"NIM_ALLOWED_LOCAL_MEDIA_PATH": str(tmp_path / "absent"), "NIM_SERVER_PORT": str(free_port())}

    done = _gemma("serve", variables=variables)

    _ended(done, ExitCode.BAD_SETTINGS, "the API refuses its settings")
    assert "NIM_ALLOWED_LOCAL_MEDIA_PATH is no folder" in done.stderr


def test_model_that_cannot_be_served(tmp_path: Path) -> None:
    """65: a file that is something else."""
    path = write_gguf(tmp_path / "llama.gguf", "llama")

    _ended(_gemma("serve", str(path)), ExitCode.CANNOT_START, "is not a Gemma 4")


def test_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    """65: the header is right, the rest is missing; the engine gives up and is not started again."""
    path = write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values())
    (tmp_path / "tokenizer.json").write_bytes((DEMO / "tokenizer.json").read_bytes())

    done = _gemma("serve", str(path), "--port", str(free_port()))

    _ended(done, ExitCode.CANNOT_START, "the engine could not load the model")


def test_taken_port() -> None:
    """68: the port and the variable are named."""
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        done = _gemma("serve", "--port", str(holder.getsockname()[1]))

    _ended(done, ExitCode.PORT_UNAVAILABLE, "NIM_SERVER_PORT")


def test_too_little_memory(tmp_path: Path) -> None:
    """69: a model larger than any memory."""
    path = write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values())
    with path.open("ab") as file:
        file.truncate(2**43)  # a hole: it takes no space on disk

    _ended(_gemma("serve", str(path), "--dry-run"), ExitCode.NO_USABLE_HARDWARE, "too little memory")


GPU_IS_LOST = """
from config.environment import load_settings
from config.manifest import load_manifest
from launcher.__main__ import _run
from launcher.commands.choice import accepted
from launcher.plan.planner import plan_profile
from tests.launcher.systems import load

settings, engines = load_settings(environ={}).settings, frozenset({"vllm", "tensorrt_llm"})
_run(lambda: accepted(plan_profile(settings, load("gpu-lost-only"), load_manifest(None), engines)))
"""


def test_broken_gpu() -> None:
    """70: an image for GPUs on a machine whose only GPU is lost."""
    done = _run("-c", GPU_IS_LOST)

    _ended(done, ExitCode.HARDWARE_FAULT, "GPU")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, ExitCode.NOT_FOUND),
        (401, ExitCode.ACCESS_DENIED),
        (403, ExitCode.ACCESS_DENIED),
        (451, ExitCode.LICENCE_NOT_ACCEPTED),
        (400, ExitCode.DOWNLOAD_FAILED),
        (200, ExitCode.DISK_FULL),
    ],
)
def test_download_that_fails(source: str, tmp_path: Path, status: int, code: ExitCode) -> None:
    """66, 77, 78, 75, 74: what the source says, and what the disk has room for."""
    done = _gemma(
        "download-to-cache", "--model-uri", f"{source}/{status}/model.gguf", variables={"NIM_CACHE_PATH": str(tmp_path)}
    )

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_start_ends_with_the_code_of_its_download(source: str, tmp_path: Path) -> None:
    """The same when it is the server that wants the model."""
    variables = {"NIM_CACHE_PATH": str(tmp_path), "NIM_MODEL_PATH": f"{source}/404/model.gguf"}

    done = _gemma("serve", "--port", str(free_port()), variables=variables)

    assert done.returncode == ExitCode.NOT_FOUND, done.stderr


def test_offline_without_the_model(tmp_path: Path) -> None:
    """66: the cache has not what may not be fetched."""
    variables = {"NIM_CACHE_PATH": str(tmp_path), "NIM_OFFLINE": "1"}

    done = _gemma("download-to-cache", "--model-uri", "hf://google/gemma-4-31B-it", variables=variables)

    assert done.returncode == ExitCode.NOT_FOUND, done.stderr


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """73: what is no folder cannot become one, for no user."""
    (tmp_path / "file").write_text("")

    done = _gemma(
        "download-to-cache", "--model-uri", "hf://google/gemma-4-31B-it",
        variables={"NIM_CACHE_PATH": str(tmp_path / "file" / "cache")},
    )  # fmt: skip

    assert done.returncode == ExitCode.CACHE_NOT_WRITABLE, done.stderr


def test_model_that_is_not_ready_in_time() -> None:
    """76: every wait has an end."""
    done = _gemma("serve", "--port", str(free_port()), variables={"NIM_START_TIMEOUT_SECONDS": "0.01"})

    _ended(done, ExitCode.START_TIMEOUT, "NIM_START_TIMEOUT_SECONDS")


@pytest.mark.parametrize(
    ("package", "number", "code"),
    [
        ("engine", signal.SIGSEGV, ExitCode.ENGINE_FAILED),
        ("api", signal.SIGKILL, ExitCode.API_FAILED),
        (None, signal.SIGTERM, ExitCode.OK),
        (None, signal.SIGINT, ExitCode.OK),
    ],
)
def test_end_of_a_running_server(tmp_path: Path, package: str | None, number: signal.Signals, code: ExitCode) -> None:
    """71, 72 and 0: a process that may not be started again, and a stop on request."""
    command = [sys.executable, "-m", "launcher", "serve", str(DEMO)]
    server = ServerProcess(command, free_port(), tmp_path / "log", {"NIM_MAX_ENGINE_RESTARTS": "0"})
    with server:
        wait_until(lambda: "ready on" in server.log(), what="ready line")
        assert server.process is not None
        os.kill(server.process.pid if package is None else server.children(package)[0], number)

        assert server.process.wait(TIMEOUT_S) == code, server.log()
    assert "Traceback" not in server.log()


def test_memory_guard_ends_the_start(tmp_path: Path) -> None:
    """137: the guard stops an engine before the machine runs out of memory."""
    done = _run("-m", session_process.__name__, str(tmp_path), str(free_port()), "guarded")

    assert done.returncode == ExitCode.OUT_OF_MEMORY, done.stderr
    assert "stopped by the memory guard" in json.loads(done.stderr.splitlines()[-1])["message"]


def _group_with_limit() -> Path | None:
    """Make a control group with little memory; None where that may not be done."""
    for controller, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        for parent in control_groups(Path("/"), controller):
            group = parent / f"gemma4-test-{os.getpid()}"
            try:
                group.mkdir()
                (group / limit).write_text(str(LIMIT_BYTES))
            except OSError:
                if group.is_dir():
                    group.rmdir()
                continue
            return group
    return None


def test_engine_killed_by_the_kernel_for_want_of_memory(tmp_path: Path) -> None:
    """137, at the first kill and never 0: the kernel itself kills an engine that takes more than its group may."""
    group = _group_with_limit()
    if group is None:
        pytest.skip("this user may not make control groups with a limit")
    enter = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
    start = f"os.execv({sys.executable!r}, {[sys.executable, '-m', session_process.__name__]!r} + sys.argv[1:])"
    try:
        done = _run("-c", f"import sys; {enter}{start}", str(tmp_path), str(free_port()), "eats-memory")
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text().strip(), what="group empty")
        group.rmdir()

    assert done.returncode == ExitCode.OUT_OF_MEMORY, done.stderr
    failure = json.loads(done.stderr.splitlines()[-1])
    assert failure["message"] == (
        "the engine was killed by the kernel because memory ran out while it loaded the model"
    )
    assert failure["exit_code"] == 137
