"""One child process: started so that it cannot outlive the launcher, and stopped politely first, then by force."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from engine.process_table import exit_status

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG: Final = 1
KILL_WAIT_S: Final = 5.0
"""A killed process is gone within milliseconds unless the kernel holds it; then waiting longer does not help."""
MAX_LINE_BYTES: Final = 65_536
"""A longer line of a child's output is cut into several."""
_TASKS: Final = Path("/proc/self/task")
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Command:
    """What to start.

    Attributes:
        name: for people.
        copies: how many such processes run side by side.
        inherited: file descriptors that the child gets under the same numbers.
        loads: files whose reading is the bulk of its start, for a figure of progress.
        check: looks before each start whether it has any prospect, and raises ``LaunchError`` if not; it may block.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    inherited: tuple[int, ...] = ()
    loads: tuple[Path, ...] = ()
    copies: int = 1
    check: Callable[[], None] | None = None

    def each(self) -> list[Command]:
        """Return a command for each process; of several, each has its number in its name and is told it."""
        if self.copies == 1:
            return [self]
        return [
            replace(self, name=f"{self.name}-{number}", arguments=(*self.arguments, "--worker", str(number)), copies=1)
            for number in range(1, self.copies + 1)
        ]


LineSink = Callable[[str, str], None]
"""Takes the name of a process and one line that it wrote, without its end."""


class Child:
    """A running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._readers: list[asyncio.Task[None]] = []
        self._has_left = False

    def read_lines(self, sink: LineSink) -> None:
        """Hand every line of both output streams to ``sink`` from now on."""
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                self._readers.append(asyncio.create_task(_read_lines(self.name, stream, sink)))

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Return the exit status, minus the signal's number if it died of one, None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it ends, end what it has left behind, and return its status."""
        status = await exit_status(self._process)
        self._end_group()
        if self._readers:
            # Its last lines say why it ended. A grandchild may keep the streams open, so the wait has an end.
            await asyncio.wait(self._readers, timeout=KILL_WAIT_S)
        return status

    async def stop(self, grace_s: float) -> int:
        """Ask it to end, wait ``grace_s`` seconds, then kill it; return its status."""
        if self._process.returncode is None:
            self._send(signal.SIGTERM)
            try:
                return await asyncio.wait_for(self.wait(), grace_s)
            except TimeoutError:
                logger.warning("%s did not end within %.0f s and is killed", self.name, grace_s)
                self._send(signal.SIGKILL)
        status = await asyncio.wait_for(exit_status(self._process), KILL_WAIT_S)
        self._end_group()
        return status

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._send(signal.SIGKILL)

    def _end_group(self) -> None:
        """Kill the processes that it had started: the workers of a dead engine would keep a GPU's memory."""
        if not self._has_left:
            # Once only: later the number may be another's.
            self._has_left = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            logger.debug("%s ended before it got %s", self.name, number.name)


async def start(command: Command, sink: LineSink | None = None) -> Child:
    """Start a child with the launcher's own standard streams, or with its lines handed to ``sink``.

    Raises:
        OSError: it cannot be started.
    """
    output = None if sink is None else asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command.arguments,
        env=dict(command.environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        limit=MAX_LINE_BYTES,
        pass_fds=command.inherited,
        # A session of its own: Ctrl-C in a terminal reaches the launcher only, which then stops its children in order.
        start_new_session=True,
        # It makes one system call and takes no lock that another thread could hold at the fork.
        preexec_fn=_end_with_launcher,
    )
    logger.info("started %s (process %d)", command.name, process.pid)
    child = Child(command.name, process)
    if sink is not None:
        child.read_lines(sink)
    return child


async def _read_lines(name: str, stream: asyncio.StreamReader, sink: LineSink) -> None:
    at_end = False
    while not at_end:
        try:
            line = await stream.readuntil()
        except asyncio.IncompleteReadError as error:
            line, at_end = error.partial, True
        except asyncio.LimitOverrunError as error:
            line = await stream.read(error.consumed)
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text:
            sink(name, text)


def reap_orphans() -> list[int]:
    """Bury dead processes that nobody waits for; return their ids.

    In a container the launcher is process 1 and inherits whatever its children leave behind. Those that it started
    itself lead a session each, and are waited for.
    """
    buried = []
    for task in _listed(_TASKS):
        with contextlib.suppress(OSError):
            for word in (_TASKS / task / "children").read_text(encoding="ascii").split():
                if _is_dead_follower(int(word)):
                    os.waitpid(int(word), os.WNOHANG)
                    buried.append(int(word))
    return buried


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - the names are all that is needed
    except OSError:
        return []


def _is_dead_follower(pid: int) -> bool:
    """Tell whether a process is dead, and led no session."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    state, _, _, session = text.rpartition(")")[2].split()[:4]
    return state == "Z" and int(session) != pid


def _end_with_launcher() -> None:
    """Ask Linux to send SIGTERM to this process when the launcher dies, even if it is killed."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
