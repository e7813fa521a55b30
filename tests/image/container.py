"""A running container: started from an image's mounted root and its configuration, asked from outside, and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
DEADLINE_S: Final = 240.0
PAUSE_S: Final = 0.02
SHELLS: Final = ("/usr/bin/dash", "/usr/bin/bash")
SCAN: Final = """
import socket
found = []
for port in range(1, 65536):
    with socket.socket() as probe:
        probe.settimeout(1)
        # A probe that was given the very port it tries as its own connects to itself.
        if probe.connect_ex(("127.0.0.1", port)) == 0 and probe.getsockname() != probe.getpeername():
            found.append(port)
print(found)
"""


class CheckError(Exception):
    """Something is not as the image promises."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose root is mounted.

    Attributes:
        root: where it is mounted.
        config: its configuration in Docker's form (``Env``, ``Entrypoint``, ``User``, ...).
        history: how its layers were made, oldest first.
        size: bytes of all layers, as a registry's user sees it once unpacked.
    """

    name: str
    root: Path
    config: dict[str, Any]
    history: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Start:
    """How a container is started: as ``docker run --read-only --user UID:GID --volume ... IMAGE ARGUMENTS``."""

    uid: int
    gid: int = 0
    arguments: tuple[str, ...] = ()
    volumes: Mapping[str, Path] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


class Container:
    """Process 1 and what surrounds it."""

    def __init__(self, image: Image, start: Start, log: Path) -> None:
        self.image = image
        self.start = start
        self.log = log
        self.began = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    "unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child",
                    sys.executable, str(ROOT / "tests" / "image" / "jail.py"), json.dumps(self._setup()),
                ],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of the image with those of this start."""
        return dict(text.split("=", 1) for text in self.image.config["Env"]) | dict(self.start.variables)

    @property
    def pid(self) -> int:
        """Return the number that process 1 of the container has outside."""
        text = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        if not text.strip():
            raise CheckError(f"the container has ended:\n{self.output()}")
        return int(text.split()[0])

    def output(self) -> str:
        """Return everything that was written to its standard output and error so far."""
        return self.log.read_text(errors="replace")

    def run(self, command: Sequence[str], **given: Any) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine in the container's network."""
        words = ["nsenter", "--target", str(self.pid), "--net", "--", *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **given)

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program of the image beside the server, as ``docker exec`` does."""
        user = ["--setuid", str(self.start.uid), "--setgid", str(self.start.gid)]
        words = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--ipc", "--root", "--wd", *user]
        return subprocess.run(
            [*words, "--", *command],
            env=self.environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip

    def wait_until_ready(self) -> tuple[float, float]:
        """Wait for it; return the seconds until it was alive and until it was ready."""
        alive = self._wait_for("/v1/health/live")
        return alive, self._wait_for("/v1/health/ready")

    def listening(self) -> list[int]:
        """Return every TCP port on which somebody answers inside the container."""
        scan = self.run([sys.executable, "-c", SCAN])
        if scan.returncode:
            raise CheckError(f"the scan failed: {scan.stderr}")
        return [int(port) for port in json.loads(scan.stdout)]

    def terminate(self) -> int:
        """Send SIGTERM to process 1, as ``docker stop`` does; return its status."""
        os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(DEADLINE_S)

    def wait(self) -> int:
        """Wait until it ends by itself; return its status."""
        return self._process.wait(DEADLINE_S)

    def kill(self) -> None:
        """End it in any case."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(DEADLINE_S)

    def _wait_for(self, route: str) -> float:
        ask = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", self._address(route)]
        while time.monotonic() - self.began < DEADLINE_S:
            if self._process.poll() is not None:
                raise CheckError(f"it ended with status {self._process.returncode}:\n{self.output()}")
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
            if children.strip() and self.run(ask).stdout == "200":
                return time.monotonic() - self.began
            time.sleep(PAUSE_S)
        raise CheckError(f"{route} was not 200 within {DEADLINE_S:.0f} s:\n{self.output()}")

    def _address(self, route: str) -> str:
        return f"http://127.0.0.1:{self.environment.get('NIM_SERVER_PORT', '8000')}{route}"

    def _setup(self) -> dict[str, Any]:
        config = self.image.config
        return {
            "root": str(self.image.root),
            "folder": config["WorkingDir"],
            "uid": self.start.uid,
            "gid": self.start.gid,
            "hidden": SHELLS,
            "volumes": {inside: str(outside) for inside, outside in self.start.volumes.items()},
            "command": [*config["Entrypoint"], *(self.start.arguments or config.get("Cmd") or ())],
            "environment": self.environment,
        }


@contextmanager
def running(image: Image, start: Start, log: Path) -> Iterator[Container]:
    """Start a container, and end it whatever happens."""
    container = Container(image, start, log)
    try:
        yield container
    finally:
        container.kill()
