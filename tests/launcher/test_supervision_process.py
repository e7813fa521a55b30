"""Nothing that a process has started outlives it, and nothing dead stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.supervision.process import Command, start
from tests.fakes.processes import is_running, wait_until

PARENT = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1] + ".partial", "w").write(str(worker.pid))
import os; os.replace(sys.argv[1] + ".partial", sys.argv[1])
worker.wait()
"""
PROCESS_ONE = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: inherits orphans, as process 1 does
from launcher.supervision.process import reap_orphans
leader = os.fork()
if leader == 0:
    os.setsid()
    follower = os.fork()
    if follower == 0:
        os._exit(3)
    os.waitid(os.P_PID, follower, os.WEXITED | os.WNOWAIT)  # it has ended, and is not buried here
    os._exit(0)
os.waitpid(leader, 0)
buried = reap_orphans()
own = os.fork()
if own == 0:
    os.setsid()
    os._exit(5)
while "Z" not in open(f"/proc/{own}/stat").read():
    time.sleep(0.01)
print(len(buried), reap_orphans(), os.waitstatus_to_exitcode(os.waitpid(own, 0)[1]))
"""


def test_workers_of_a_killed_process_are_ended(tmp_path: Path) -> None:
    """They would keep the memory of a GPU, so that no new engine could start."""
    told = tmp_path / "worker"

    async def run() -> int:
        child = await start(Command("engine", (sys.executable, "-c", PARENT, str(told)), dict(os.environ)))
        while not told.exists():
            await asyncio.sleep(0.02)
        child.kill()
        await child.wait()
        return int(told.read_text())

    worker = asyncio.run(asyncio.wait_for(run(), 60))

    wait_until(lambda: not is_running(worker), what="worker gone")


def test_a_worker_that_holds_the_output_open_hides_no_end(tmp_path: Path) -> None:
    """The end of a killed engine is known although its worker goes on, and the worker is ended."""
    told = tmp_path / "worker"

    async def run() -> tuple[int, int]:
        command = Command("engine", (sys.executable, "-c", PARENT, str(told)), dict(os.environ))
        child = await start(command, lambda _name, _line: None)
        while not told.exists():
            await asyncio.sleep(0.02)
        child.kill()
        return await child.wait(), int(told.read_text())

    status, worker = asyncio.run(asyncio.wait_for(run(), 60))

    assert status == -signal.SIGKILL
    wait_until(lambda: not is_running(worker), what="worker gone")


def test_workers_of_a_process_that_does_not_stop_are_ended(tmp_path: Path) -> None:
    """It is killed when its time is over, and so is what it has started."""
    told = tmp_path / "worker"
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{PARENT}"

    async def run() -> tuple[int, int]:
        child = await start(Command("engine", (sys.executable, "-c", deaf, str(told)), dict(os.environ)))
        while not told.exists():
            await asyncio.sleep(0.02)
        return await child.stop(0.1), int(told.read_text())

    status, worker = asyncio.run(asyncio.wait_for(run(), 60))

    assert status == -signal.SIGKILL
    wait_until(lambda: not is_running(worker), what="worker gone")


def test_orphans_are_buried_and_own_children_are_not() -> None:
    """As process 1 the launcher inherits them; the status of its own children is left for whoever waits for them."""
    done = subprocess.run([sys.executable, "-c", PROCESS_ONE], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["1", "[]", "5"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_command_that_does_not_serve_can_be_ended(number: signal.Signals, status: int) -> None:
    """Also as process 1 of a container, which ignores signals without a handler."""
    program = "import time; from launcher.__main__ import _run; _run(lambda: (print(flush=True), time.sleep(600)))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)

        assert process.wait(100) == status
