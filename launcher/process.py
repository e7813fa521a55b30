"""One child process: started so that it cannot outlive the launcher, and stopped politely first, then by force."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG: Final = 1
KILL_WAIT_S: Final = 5.0
"""A killed process is gone within milliseconds unless the kernel holds it; then waiting longer does not help."""
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Command:
    """What to start: a name for people, the arguments, and the environment."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]


class Child:
    """A running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Return the exit status, minus the signal's number if it died of one, None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it ends and return its status."""
        return await self._process.wait()

    async def stop(self, grace_s: float) -> int:
        """Ask it to end, wait ``grace_s`` seconds, then kill it; return its status."""
        if self._process.returncode is None:
            self._send(signal.SIGTERM)
            try:
                return await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                logger.warning("%s did not end within %.0f s and is killed", self.name, grace_s)
                self._send(signal.SIGKILL)
        return await asyncio.wait_for(self._process.wait(), KILL_WAIT_S)

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            logger.debug("%s ended before it got %s", self.name, number.name)


async def start(command: Command) -> Child:
    """Start a child with the launcher's own standard streams.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command.arguments,
        env=dict(command.environment),
        stdin=asyncio.subprocess.DEVNULL,
        # A session of its own: Ctrl-C in a terminal reaches the launcher only, which then stops its children in order.
        start_new_session=True,
        # It makes one system call and takes no lock that another thread could hold at the fork.
        preexec_fn=_end_with_launcher,
    )
    logger.info("started %s (process %d)", command.name, process.pid)
    return Child(command.name, process)


def _end_with_launcher() -> None:
    """Ask Linux to send SIGTERM to this process when the launcher dies, even if it is killed."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
