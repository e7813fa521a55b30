"""Whether Triton can carry the engine here, asked before anything is started, and the command that starts it so.

What a usable installation of Triton is, ``engine.triton.installation`` knows. It is asked in the interpreter that
would run the model, which need not be the launcher's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.environment import child_environment
from config.settings_transport import TransportSettings
from launcher.errors import ExitCode, LaunchError

CHECK_TIMEOUT_S: Final = 60.0
_REMEDY: Final = "name its interpreter in NIM_TRITON_PYTHON, or set NIM_ENGINE_TRANSPORT=embedded; see docs/triton.md"


@dataclass(frozen=True, slots=True)
class EngineProgram:
    """How an engine process is started.

    Attributes:
        command: to which only the engine's record is added.
        endpoint: where it listens; None is a socket in the private folder.
    """

    command: Sequence[str] = (sys.executable, "-m", "engine")
    endpoint: str | None = None


EMBEDDED: Final = EngineProgram()


def engine_program(transport: TransportSettings) -> EngineProgram:
    """Return what the settings ask for."""
    if transport.kind != "triton":
        return EMBEDDED
    listeners = (("--http", transport.triton_http), ("--metrics", transport.triton_metrics))
    options = [word for option, address in listeners if address is not None for word in (option, address)]
    return EngineProgram((str(_interpreter(transport)), "-m", "engine.triton", *options), transport.triton_grpc)


def find_triton(transport: TransportSettings) -> Path:
    """Return the ``tritonserver`` that would carry the engine.

    Raises:
        LaunchError: there is none that works, or the interpreter cannot run it.
    """
    python = _interpreter(transport)
    if not (python.is_file() and os.access(python, os.X_OK)):
        message = f"NIM_TRITON_PYTHON={str(python)!r} is no program that can be run"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "name the interpreter of the environment that holds Triton")
    try:
        done = subprocess.run(  # noqa: S603 - the user names the interpreter
            [str(python), "-m", "engine.triton.installation"], env=child_environment({}),
            capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False,
        )  # fmt: skip
    except OSError as error:
        message = f"NIM_TRITON_PYTHON={str(python)!r} cannot be run: {error.strerror}"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, _REMEDY) from error
    except subprocess.TimeoutExpired as error:
        message = f"{python} did not say within {CHECK_TIMEOUT_S:.0f} s whether it can run Triton"
        raise LaunchError(ExitCode.CANNOT_START, message, _REMEDY) from error
    if done.returncode != 0:
        raise LaunchError(ExitCode.CANNOT_START, _reason(python, done.stderr), _REMEDY)
    return Path(done.stdout.strip())


def _interpreter(transport: TransportSettings) -> Path:
    # A link in a virtual environment must stay one: its target knows nothing of the environment.
    given = transport.triton_python
    return Path(sys.executable) if given is None else given.expanduser().absolute()


def _reason(python: Path, errors: str) -> str:
    last = (errors.strip().splitlines() or ["it says nothing"])[-1]
    if "No module named" in last:
        return f"{python} does not find this program or what it needs ({last.rpartition(': ')[2]})"
    return last
