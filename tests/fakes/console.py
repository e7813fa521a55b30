"""Runs the installed console scripts as a user does: real processes, without this machine's settings."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fakes import commands

TIMEOUT_S = 250
"""For a machine that is busy with much else; commands that serve start an engine before they fail."""
_FOREIGN = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE", "HF_TOKEN", "NGC_API_KEY", "NGC_CLI_API_KEY", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH",
)  # fmt: skip


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without settings, and with ``variables``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NIM_", "AWS_")) and name not in _FOREIGN
    }
    return kept | dict(variables or {})


def script(name: str) -> str:
    """Return the path of a console script."""
    return str(Path(sys.executable).with_name(name))


def run(name: str, *arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a console script to its end."""
    return commands.run([script(name), *arguments], environment(variables), TIMEOUT_S)


def cpu_seconds(name: str, *arguments: str, variables: Mapping[str, str] | None = None) -> float:
    """Return the processor time that a console script takes, with that of what it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([script(name), *arguments], capture_output=True, env=environment(variables), check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fails_well(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check that a command ended with this status, said why in words, and showed no traceback."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
