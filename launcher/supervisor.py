"""Carries out a plan: starts the API and the engine, watches them, and stops them in the right order.

The API starts first, so that liveness is 200 at once. A process that crashed is started again; one that can never start
ends the launcher with an exit code of its own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from launcher.errors import ExitCode, LaunchError
from launcher.machine import check_port
from launcher.process import Child, Command, start
from launcher.readiness import LIVE, READY, HealthProbe
from launcher.restarts import RestartBudget
from launcher.workspace import Workspace

logger = logging.getLogger(__name__)

LIVE_TIMEOUT_S: Final = 60.0
ENGINE_GRACE_S: Final = 5.0
"""The engine has nothing to finish once the API is gone."""
API_MARGIN_S: Final = 5.0
"""What the API may take beyond the grace period to close its connections."""
CANCEL_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines and budgets, from ``config.settings.LaunchSettings``."""

    start_timeout_s: float
    grace_s: float
    max_restarts: int


class Supervisor:
    """Runs one API process and one engine process until told to stop."""

    def __init__(self, workspace: Workspace, probe: HealthProbe, limits: Limits, on_ready: Callable[[], None]) -> None:
        self._workspace = workspace
        self._probe = probe
        self._limits = limits
        self._on_ready = on_ready
        self._children: dict[str, Child] = {}
        self._was_ready = False
        self._kills_while_loading = 0
        self._stop = asyncio.Event()

    async def run(self, api: Command, engine: Command) -> None:
        """Start both and return after a clean stop.

        Raises:
            LaunchError: something can never start, or crashed too often.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        self._workspace.write_phase("starting")
        tasks = [
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(self._keep(api, self._watch_api)),
            asyncio.create_task(self._keep(engine, self._watch_engine)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # A second failure is only a consequence of the first: report the one that came first, in this order.
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await _cancel(tasks)
            await self._shut_down()

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            logger.warning("second %s: stopping without waiting", number.name)
            for child in self._children.values():
                child.kill()
        self._stop.set()

    async def _keep(self, command: Command, watch: Callable[[Child], Coroutine[Any, Any, None]]) -> None:
        """Start a process again whenever it ends, within the budget."""
        budget = RestartBudget(self._limits.max_restarts)
        while True:
            child = await start(command)
            self._children[command.name] = child
            await watch(child)
            status = await child.wait()
            pause = budget.pause_after_crash(asyncio.get_running_loop().time())
            if pause is None:
                raise _gave_up(command.name, status, self._limits.max_restarts)
            logger.warning("the %s process ended (%s); starting it again", command.name, describe(status))
            if command.name == "engine":
                self._workspace.write_phase("restarting", last_status=status)
            await asyncio.sleep(pause)

    async def _watch_api(self, child: Child) -> None:
        try:
            async with asyncio.timeout(LIVE_TIMEOUT_S):
                await _until(child, self._probe.wait(LIVE))
        except TimeoutError as error:
            message = f"the API did not answer within {LIVE_TIMEOUT_S:.0f} s"
            raise LaunchError(ExitCode.API_FAILED, message) from error
        if child.status is not None and not self._was_ready:
            # Somebody may have taken the port since it was checked.
            check_port(self._probe.host, self._probe.port)
            raise LaunchError(ExitCode.API_FAILED, f"the API could not start ({describe(child.status)})")

    async def _watch_engine(self, child: Child) -> None:
        if not self._was_ready:
            self._workspace.write_phase("loading")
        try:
            async with asyncio.timeout(self._limits.start_timeout_s):
                await _until(child, self._probe.wait(READY))
        except TimeoutError as error:
            message = f"the model was not ready within {self._limits.start_timeout_s:.0f} s"
            raise LaunchError(ExitCode.START_TIMEOUT, message, "raise NIM_START_TIMEOUT_SECONDS") from error
        if child.status is not None:
            self._check_first_start(child.status)
            return
        self._workspace.write_phase("ready")
        if self._was_ready:
            logger.warning("the engine is ready again")
        else:
            self._was_ready = True
            self._on_ready()

    def _check_first_start(self, status: int) -> None:
        """Tell "can never start" from "crashed": an engine that gives up before it was ever ready would do so again."""
        if self._was_ready:
            return
        if status == -signal.SIGKILL:
            self._kills_while_loading += 1
        # One kill may have been somebody's hand; the kernel's comes again.
        if self._kills_while_loading > 1:
            message = "the engine was killed twice while it loaded the model, most likely because memory ran out"
            raise LaunchError(ExitCode.OUT_OF_MEMORY, message, "lower NIM_MAX_MODEL_LEN or NIM_MAX_NUM_SEQS")
        if status >= 0:
            message = "the engine could not load the model; its own message stands above"
            raise LaunchError(ExitCode.CANNOT_START, message)

    async def _shut_down(self) -> None:
        """Let the API finish its requests first, while the engine still serves them."""
        self._workspace.write_phase("stopping")
        for name, grace_s in (("api", self._limits.grace_s + API_MARGIN_S), ("engine", ENGINE_GRACE_S)):
            child = self._children.get(name)
            if child is not None:
                status = await child.stop(grace_s)
                logger.info("the %s process ended (%s)", name, describe(status))


def describe(status: int) -> str:
    """Say in words how a process ended."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _gave_up(name: str, status: int, allowed: int) -> LaunchError:
    message = f"the {name} process ended more than {allowed} times within ten minutes, last with {describe(status)}"
    if name == "api":
        return LaunchError(ExitCode.API_FAILED, message)
    if status == -signal.SIGKILL:
        return LaunchError(ExitCode.OUT_OF_MEMORY, message, "memory is probably short")
    return LaunchError(ExitCode.ENGINE_FAILED, message)


async def _until(child: Child, condition: Coroutine[Any, Any, None]) -> None:
    """Wait for a condition or for the end of the child, whichever comes first."""
    tasks = [asyncio.create_task(condition), asyncio.create_task(child.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(tasks)


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """End tasks, whatever they return or raise; being cancelled oneself meanwhile is not swallowed.

    A task may lose a cancellation that comes just when what it waits for is done, so it is repeated until
    all have ended.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("ended with %r", error)
