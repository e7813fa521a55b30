"""The boundary of the commands: every failure is one line and a status, a reader that goes away is no fault."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from config.errors import ConfigError
from launcher import __main__ as boundary
from launcher.errors import ExitCode, LaunchError
from tests.fakes import console
from tests.fakes.file_server import file_server


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def work() -> NoReturn:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (LaunchError(ExitCode.DISK_FULL, "no room", "free some"), 74, "gemma4-nim: no room (free some)\n"),
        (LaunchError(ExitCode.NOT_FOUND, "gone"), 66, "gemma4-nim: gone\n"),
        (ConfigError(["A is wrong", "B is wrong"]), 64, "gemma4-nim: A is wrong\ngemma4-nim: B is wrong\n"),
        (SystemExit(2), 64, ""),
        (SystemExit(71), 71, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_each_failure_has_its_status(
    error: BaseException, status: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failures become lines without a traceback; arguments that are not understood are bad settings."""
    with pytest.raises(SystemExit) as ended:
        boundary._run(_raising(error))

    assert ended.value.code == status
    assert capsys.readouterr().err == shown


def test_own_fault_shows_where_it_is() -> None:
    """What nobody expected ends with 1 and says that it is ours, with the lines that help to find it."""
    code = "from launcher import __main__ as m; m._run(lambda: [][0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == ExitCode.INTERNAL
    assert "this is a fault of gemma4-nim" in done.stderr
    assert "IndexError" in done.stderr


def test_ctrl_c_while_modules_are_imported() -> None:
    """On a cold disk that takes seconds: a status as later, and no traceback."""
    code = (
        "import signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from launcher.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (130, "")


def test_password_in_an_address_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """An address with a password can be named in an error without telling it."""
    error = LaunchError(ExitCode.DOWNLOAD_FAILED, "https://me:hunter22@mirror.example does not answer")
    with pytest.raises(SystemExit):
        boundary._run(_raising(error))

    assert "hunter22" not in capsys.readouterr().err


def test_reader_that_goes_away_is_no_fault() -> None:
    """``list-model-profiles | head -1`` ends without a traceback."""
    command = f"{console.script('list-model-profiles')} --json | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=console.environment(), timeout=60, check=False
    )

    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


def test_unknown_command_and_version() -> None:
    """A command that does not exist is a bad setting; --version names the program and its version."""
    unknown = console.run("gemma4-nim", "serv")
    version = console.run("gemma4-nim", "--version")

    assert unknown.returncode == ExitCode.BAD_SETTINGS
    assert "No such command 'serv'" in unknown.stderr
    assert version.stdout.startswith("gemma4-nim ")
    assert version.returncode == ExitCode.OK


def test_interrupted_download_goes_on(tmp_path: Path) -> None:
    """Ctrl-C ends a download with 130 and no traceback, and the next run fetches what is missing."""
    began, go_on = threading.Event(), threading.Event()
    (tmp_path / "model.gguf").write_bytes(b"x" * 100_000)

    def hold(wanted: str) -> None:
        if wanted != "bytes=0-0":
            began.set()
            go_on.wait(100)

    with file_server(tmp_path) as server:
        server.hold = hold
        command = [console.script("download-to-cache"), "--model-uri", f"{server.url}/model.gguf"]
        variables = console.environment({"NIM_CACHE_PATH": str(tmp_path / "cache")})
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables)
        assert began.wait(100)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        go_on.set()
        again = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60, check=False)

    assert process.returncode == 130
    assert "Traceback" not in told
    assert again.returncode == ExitCode.OK, again.stderr
    folder = Path(again.stdout.rpartition(": ")[2].strip())
    assert (folder / "model.gguf").read_bytes() == b"x" * 100_000
