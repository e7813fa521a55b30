"""Child processes of a benchmark: started, waited for with a deadline, weighed by their CPU time, and always ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from config.environment import child_environment

DEADLINE_S = 90.0
_PAUSE_S = 0.05


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Tell whether something listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, that the living threads of a process have used."""
    # The times in /proc/PID/stat have steps of 10 ms; the scheduler's own count, per thread, is in nanoseconds.
    counts = [path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(map(int, counts)) / 1e9


def cpu_ticks(pid: int) -> tuple[int, int]:
    """Return the CPU time that a process has used outside and inside the kernel, in the system's coarse ticks."""
    # The name in parentheses may hold anything; the counters are fields 14 and 15 of the whole line.
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]), int(fields[12])


@contextmanager
def running(
    arguments: Sequence[str],
    is_ready: Callable[[], bool],
    log_path: Path,
    *,
    core: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python ARGUMENTS`` for the time of the block, entered once it is ready.

    Args:
        arguments: what follows the interpreter, such as ``["-m", "api"]``.
        is_ready: asked until it holds.
        log_path: takes everything that the process writes.
        core: the one CPU core that it may use, None for all.
        variables: environment variables besides the inherited ones; inherited ``NIM_*`` variables are left out.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message holds its last words.
    """
    kept = {name: value for name, value in child_environment({}).items() if not name.startswith("NIM_")}
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of this package
            [sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT, env={**kept, **(variables or {})}
        )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        _wait(process, is_ready, log_path)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log_path: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > end:
            words = log_path.read_text(errors="replace")[-2000:]
            message = f"{process.args!r} did not become ready:\n{words}"
            raise RuntimeError(message)
        time.sleep(_PAUSE_S)


def run_json(arguments: Sequence[str], *, timeout_s: float, core: int | None = None) -> dict[str, float]:
    """Run ``python ARGUMENTS`` to its end and return the JSON object that it printed.

    Raises:
        subprocess.SubprocessError: it failed or took too long.
    """
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE)  # noqa: S603 - as above
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        output, _ = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    answer: dict[str, float] = json.loads(output)
    return answer
