"""Carries out a plan: starts the API and the engine, watches them, and stops them in the right order.

The API starts first, so that liveness is 200 at once. A process that crashed is started again; one that can never start
ends the launcher with an exit code of its own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from launcher.errors import ExitCode, LaunchError
from launcher.supervision import endings
from launcher.supervision.endings import Ending
from launcher.supervision.front import Front
from launcher.supervision.load_progress import LoadProgress
from launcher.supervision.memory_guard import MemoryGuard
from launcher.supervision.out_of_memory import KillCounter
from launcher.supervision.phases import Phases
from launcher.supervision.process import Child, Command, LineSink, reap_orphans, start
from launcher.supervision.readiness import LIVE, READY, HealthProbe
from launcher.supervision.restarts import RestartBudget
from launcher.supervision.tasks import first_of, until
from launcher.workspace import Workspace

logger = logging.getLogger(__name__)

LIVE_TIMEOUT_S: Final = 60.0
LOOK_EVERY_S: Final = 1.0
"""So often a look is taken at how far the engine has loaded."""
ENGINE_GRACE_S: Final = 5.0
"""The engine has nothing to finish once the API is gone."""
API_MARGIN_S: Final = 5.0
"""What the API may take beyond the grace period to close its connections."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines and budgets, from ``config.settings.LaunchSettings``."""

    start_timeout_s: float
    grace_s: float
    max_restarts: int


@dataclass(slots=True)
class Surroundings:
    """What a run may have around its two processes; everything may be left out.

    Attributes:
        front: holds the port, and answers while the API does not.
        guard: stops the engine before the machine runs out of memory.
        sink: takes the lines that the processes write; None leaves them the launcher's own streams.
        phases: where the start stands; None makes it from the workspace.
        kills: the kernel's count of kills for want of memory.
    """

    front: Front | None = None
    guard: MemoryGuard | None = None
    sink: LineSink | None = None
    phases: Phases | None = None
    kills: KillCounter = field(default_factory=KillCounter)


class Supervisor:
    """Runs API processes, and mostly one engine process, until told to stop."""

    def __init__(
        self,
        workspace: Workspace,
        probe: HealthProbe,
        limits: Limits,
        on_ready: Callable[[], None],
        around: Surroundings | None = None,
    ) -> None:
        self._around = around or Surroundings()
        self._phases = self._around.phases or Phases(workspace)
        self._probe = probe
        self._limits = limits
        self._on_ready = on_ready
        self._children: dict[str, Child] = {}
        self._serving: list[Child] = []
        self._handing_over = asyncio.Lock()
        self._was_ready = False
        self._kills_while_loading = 0
        self._guarded: Child | None = None
        self._stop = asyncio.Event()

    async def run(self, api: Command, engine: Command | None) -> None:
        """Start both and return after a clean stop; without an engine the API has engines that are somebody else's.

        Raises:
            LaunchError: something can never start, or crashed too often.
        """
        self.take_signals()
        if self._around.phases is None:
            self._phases.enter("starting")
        engines = self._await_engines() if engine is None else self._keep(engine, self._watch_engine)
        work = [*(self._keep(command, self._watch_api) for command in api.each()), engines]
        if self._around.guard is not None:
            work.append(self._watch_memory(self._around.guard))
        try:
            # A second failure is only a consequence of the first: report the one that came first, in this order.
            await first_of(self._stop.wait(), *work)
        finally:
            await self._shut_down()

    def take_signals(self) -> None:
        """Let SIGTERM and SIGINT stop this run from now on; a second one does not wait."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    async def stopped(self) -> None:
        """Return when a signal to stop has come."""
        await self._stop.wait()

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            logger.warning("second %s: stopping without waiting", number.name)
            for child in self._children.values():
                child.kill()
        self._stop.set()

    async def _keep(self, command: Command, watch: Callable[[Child, Command], Coroutine[Any, Any, None]]) -> None:
        """Start a process again whenever it ends, within the budget."""
        budget = RestartBudget(self._limits.max_restarts)
        while True:
            await _check(command)
            try:
                child = await start(command, self._around.sink)
            except OSError as error:
                raise endings.not_started(command.name, error) from error
            self._children[command.name] = child
            await watch(child, command)
            ending = await self._ending(child)
            reap_orphans()
            pause = budget.pause_after_crash(asyncio.get_running_loop().time())
            if pause is None:
                await _check(command)
                raise endings.gave_up(ending, self._limits.max_restarts)
            logger.warning("the %s process ended (%s); starting it again", command.name, ending.describe())
            self._phases.note_restart("engine" if command.name == "engine" else "api")
            if command.name == "engine":
                self._phases.enter("restarting", last_status=ending.status, reason=ending.describe())
            await asyncio.sleep(pause)

    async def _ending(self, child: Child) -> Ending:
        status = await child.wait()
        for_memory = self._around.kills.take_one() if status == -signal.SIGKILL else False
        return Ending(child.name, status, by_guard=child is self._guarded, for_memory=for_memory)

    async def _watch_api(self, child: Child, _: Command) -> None:
        try:
            async with asyncio.timeout(LIVE_TIMEOUT_S):
                await until(child.wait(), self._hand_over(child))
        except TimeoutError as error:
            message = f"the API did not answer within {LIVE_TIMEOUT_S:.0f} s"
            raise LaunchError(ExitCode.API_FAILED, message) from error
        if child.status is not None and not self._was_ready:
            raise endings.api_never_live(await self._ending(child))

    async def _hand_over(self, child: Child) -> None:
        """Let the front step aside for an API process; when another one serves already, it has."""
        async with self._handing_over:
            if not any(other.status is None for other in self._serving):
                front = self._around.front
                await (self._probe.wait(LIVE) if front is None else front.hand_over(self._probe))
            self._serving.append(child)

    async def _watch_engine(self, child: Child, command: Command) -> None:
        if not self._was_ready:
            self._phases.enter("loading")
        try:
            async with asyncio.timeout(self._limits.start_timeout_s):
                await until(child.wait(), self._probe.wait(READY), beside=self._look_at_loading(child, command))
        except TimeoutError as error:
            message = f"the model was not ready within {self._limits.start_timeout_s:.0f} s"
            raise LaunchError(ExitCode.START_TIMEOUT, message, "raise NIM_START_TIMEOUT_SECONDS") from error
        if child.status is not None:
            await self._check_first_start(child, command)
            return
        self._phases.enter("ready")
        if self._was_ready:
            logger.warning("the engine is ready again")
        else:
            self._was_ready = True
            self._on_ready()

    async def _await_engines(self) -> None:
        """Say when the first of the others' engines can generate; what becomes of them later, the API's route tells."""
        self._phases.enter("connecting")
        await self._probe.wait(READY)
        self._phases.enter("ready")
        self._was_ready = True
        self._on_ready()
        await self._stop.wait()

    async def _look_at_loading(self, child: Child, command: Command) -> None:
        progress = LoadProgress(child.pid, command.loads)
        total = progress.total()
        while total and not self._was_ready:
            await asyncio.sleep(LOOK_EVERY_S)
            self._phases.progress("loading", await asyncio.to_thread(progress.done), total)

    async def _check_first_start(self, child: Child, command: Command) -> None:
        """An engine that gives up before it was ever ready would do so again."""
        if self._was_ready:
            return
        ending = await self._ending(child)
        self._kills_while_loading += ending.was_killed
        failure = endings.before_ready(ending, self._kills_while_loading)
        if failure is not None:
            await _check(command)
            raise failure

    async def _watch_memory(self, guard: MemoryGuard) -> None:
        while True:
            sample = await guard.watch()
            engine = self._children.get("engine")
            if engine is not None and engine.status is None:
                left = f"{sample.available // 2**20} MiB of memory are left, the limit is {guard.floor // 2**20}"
                logger.error("%s: the engine is stopped before the machine hangs", left)
                self._guarded = engine
                engine.kill()
                await engine.wait()

    async def _shut_down(self) -> None:
        """Let the API finish its requests first, while the engine still serves them."""
        self._phases.enter("stopping")
        engines = [child for child in self._children.values() if child.name == "engine"]
        apis = [child for child in self._children.values() if child.name != "engine"]
        for children, grace_s in ((apis, self._limits.grace_s + API_MARGIN_S), (engines, ENGINE_GRACE_S)):
            for child, status in zip(children, await _stop_all(children, grace_s), strict=True):
                logger.info("the %s process ended (%s)", child.name, endings.describe(status))
            if self._around.front is not None:
                # Whoever connects now is told so, instead of waiting in the queue of a socket that nobody reads.
                self._around.front.resume()


async def _check(command: Command) -> None:
    """See whether a process can be started at all: what has broken meanwhile is a better reason than how one ended.

    Raises:
        LaunchError: it cannot.
    """
    if command.check is not None:
        await asyncio.to_thread(command.check)


async def _stop_all(children: Sequence[Child], grace_s: float) -> list[int]:
    """Stop processes at the same time and return how each has ended."""
    return await asyncio.gather(*(child.stop(grace_s) for child in children))
