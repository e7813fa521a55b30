"""Starts the product's processes for tests and waits for conditions, always with a deadline."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import requests

from config.environment import child_environment

DEADLINE_S = 60.0
_PAUSE_S = 0.02


def wait_until(condition: Callable[[], bool], *, deadline_s: float = DEADLINE_S, what: str = "condition") -> None:
    """Wait for a condition to hold.

    Raises:
        TimeoutError: when it does not in time.
    """
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            message = f"{what} not reached within {deadline_s} s"
            raise TimeoutError(message)
        time.sleep(_PAUSE_S)


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A process that serves HTTP on a port of this machine; a context manager."""

    def __init__(self, command: Sequence[str], port: int, log_path: Path, variables: Mapping[str, str]) -> None:
        self.base_url = f"http://127.0.0.1:{port}"
        self._command = list(command)
        self._log_path = log_path
        kept = {name: value for name, value in child_environment({}).items() if not name.startswith("NIM_")}
        self._environment = {**kept, **variables, "NIM_SERVER_PORT": str(port), "NIM_SERVER_HOST": "127.0.0.1"}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start, and wait until the server is ready."""
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment)
        try:
            wait_until(self._is_ready_or_dead, what=f"{self._command} ready")
            self._check_alive()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop with SIGTERM, and with SIGKILL if that does not help."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def log(self) -> str:
        """Return everything that the process wrote."""
        return self._log_path.read_text(errors="replace")

    def children(self, package: str) -> list[int]:
        """Return the process ids of its children that run ``python -m PACKAGE``."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            is_ours = self.process is not None and parent == self.process.pid
            if is_ours and b"-m" in words and package.encode() in words:
                found.append(int(folder.name))
        return found

    def is_ready(self) -> bool:
        """Tell whether the readiness route says so."""
        try:
            return requests.get(f"{self.base_url}/v1/health/ready", timeout=5).ok
        except requests.ConnectionError:
            return False

    def _check_alive(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            message = f"{self._command} ended with {self.process.returncode}:\n{self.log()}"
            raise RuntimeError(message)

    def _is_ready_or_dead(self) -> bool:
        return self.is_ready() or (self.process is not None and self.process.poll() is not None)
