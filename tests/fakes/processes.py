"""Starts the product's processes for tests and waits for conditions, always with a deadline."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import requests

from config.environment import child_environment

DEADLINE_S = 100.0
"""Long enough for a machine that is busy with much else: what is missed by then does not come."""
TLS_DATA = Path(__file__).parent.parent / "data" / "server_tls"
"""Certificates for servers of tests; ``ca.pem`` signed them."""
_PAUSE_S = 0.02
_START_PAUSE_S = 0.06
"""A start takes a second or more of all cores, of which each question takes a part."""
_PORTS_FROM = 10_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def wait_until(
    condition: Callable[[], bool], *, deadline_s: float = DEADLINE_S, what: str = "condition", pause_s: float = _PAUSE_S
) -> None:
    """Wait for a condition to hold.

    Raises:
        TimeoutError: when it does not in time.
    """
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            message = f"{what} not reached within {deadline_s} s"
            raise TimeoutError(message)
        time.sleep(pause_s)


def free_port() -> int:
    """Return a TCP port that is free and stays so until it is bound.

    It lies below those that the kernel gives to outgoing connections, and is given once only: for the rest of its life
    this process holds a name for it that every other test process sees.
    """
    ports = range(_PORTS_FROM, int(_EPHEMERAL.read_text().split()[0]))
    while True:
        port = secrets.choice(ports)
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0gemma4-nim-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("", port))
        except OSError as error:
            reservation.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            reservation.detach()  # open until this process ends
            return port


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children, whichever of its threads has started them."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread may have ended meanwhile
            found += [int(child) for child in thread.read_text().split()]
    return found


class ServerProcess:
    """A process that serves HTTP on a port of this machine; a context manager."""

    def __init__(self, command: Sequence[str], port: int, log_path: Path, variables: Mapping[str, str]) -> None:
        is_encrypted = variables.get("NIM_SSL_MODE", "disabled") != "disabled"
        self.base_url = f"{'https' if is_encrypted else 'http'}://127.0.0.1:{port}"
        self.authority = TLS_DATA / "ca.pem" if is_encrypted else None
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
            wait_until(self._is_ready_or_dead, what=f"{self._command} ready", pause_s=_START_PAUSE_S)
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
        """Return the process ids of its children that run ``python -m PACKAGE``, or a package within it."""
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
            if is_ours and b"-m" in words and (words[words.index(b"-m") + 1] + b".").startswith(f"{package}.".encode()):
                found.append(int(folder.name))
        return found

    def is_ready(self) -> bool:
        """Tell whether the readiness route says so."""
        try:
            verify = True if self.authority is None else str(self.authority)
            return requests.get(f"{self.base_url}/v1/health/ready", timeout=60, verify=verify).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def _check_alive(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            message = f"{self._command} ended with {self.process.returncode}:\n{self.log()}"
            raise RuntimeError(message)

    def _is_ready_or_dead(self) -> bool:
        return self.is_ready() or (self.process is not None and self.process.poll() is not None)
