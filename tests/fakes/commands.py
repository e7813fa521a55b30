"""Runs console scripts to their end, as ``subprocess.run`` does, without importing the product for each.

A command whose environment changes what Python itself, its libraries' loader or the terminal do is started as usual.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.fakes import command_forker

_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TERM", "FORCE_COLOR", "NO_COLOR", "PY_COLORS")


def run(
    arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float, text: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run a console script with this standard input; its first argument is the script's path.

    Raises:
        subprocess.TimeoutExpired: it did not end in time; it has been killed.
    """
    if _of_the_start(environment) != _of_the_start(os.environ):
        done = subprocess.run(
            list(arguments), input=text, capture_output=True, timeout=timeout_s, env=environment, check=False
        )
        return subprocess.CompletedProcess(arguments, done.returncode, done.stdout.decode(), done.stderr.decode())
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(text)
        given.seek(0)
        status = _status(arguments, environment, timeout_s, (given, out, err))
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read().decode(), err.read().decode())


def _status(
    arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float, streams: Sequence[IO[bytes]]
) -> int:
    """Run in a fork and return the exit status."""
    job = {"arguments": list(arguments), "environment": dict(environment), "folder": str(Path.cwd())}
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as told:
        try:
            files = [*(stream.fileno() for stream in streams), theirs]
            socket.send_fds(_forker(), [json.dumps(job).encode()], files)
        finally:
            os.close(theirs)
        lines = b""
        while lines.count(b"\n") < 2:
            ready, _, _ = select.select([told], (), (), timeout_s)
            if not ready:
                os.kill(int(lines), signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout_s)
            data = told.read(64)
            assert data, "the process that forks commands is gone"
            lines += data
    return int(lines.split()[1])


def _of_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


@functools.cache
def _forker() -> socket.socket:
    """Start the process that forks, once; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", command_forker.__file__, str(theirs.fileno())]
    root = str(Path(command_forker.__file__).parents[2])
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": search})
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
