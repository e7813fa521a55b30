"""Checks of the engines: whether their libraries are installed and can be loaded by this processor."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

from launcher.commands.doctor.findings import Findings, failure, fine
from launcher.commands.engines import LIBRARIES, available_engines
from launcher.errors import ExitCode, LaunchError

LOAD_TIMEOUT_S: Final = 60.0
QUICK: Final = ("llama_cpp",)
"""Engines whose library loads in a moment; the others take half a minute and touch the GPU, so they are not tried."""


def check_engines() -> Findings:
    """See which engines there are, and load the library of those where that is quick: in a process of its own."""
    engines = available_engines()
    if not engines:
        message = "no engine is installed"
        error = LaunchError(ExitCode.CANNOT_START, message, "install gemma4-nim with what it needs: make setup")
        yield failure("engine", error)
    for engine in sorted(engines):
        if engine not in QUICK:
            yield fine("engine", f"{engine} is installed")
            continue
        problem = _load_problem(LIBRARIES[engine])
        if problem:
            remedy = "install it again, for this processor and Python: make setup"
            yield failure("engine", LaunchError(ExitCode.CANNOT_START, f"{engine}: {problem}", remedy))
        else:
            yield fine("engine", f"{engine} can be loaded")


def _load_problem(package: str) -> str:
    # A library that was built for another processor ends its process; doctor must live on to say so.
    try:
        done = subprocess.run(  # noqa: S603 - the names are constants of this program
            [sys.executable, "-c", f"import {package}"],
            capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{package} did not load within {LOAD_TIMEOUT_S:.0f} s"
    if done.returncode == -signal.SIGILL:
        return f"{package} uses instructions that this processor does not have"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"{package} cannot be loaded: {last}"
    return ""
