"""One run of the server, from opening its port to a clean stop: composes the parts of supervision.

The port is open and ``live`` is 200 before anything slow begins; then whatever the caller has to prepare (a plan, a
download) runs beside the front, and a signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from config.environment import LoadedSettings
from config.public_status import public_facts
from config.redaction import Redactor
from launcher.access import Access
from launcher.hardware.host_memory import host_memory
from launcher.report import Reporter
from launcher.supervision.front import Front
from launcher.supervision.listener import open_listener
from launcher.supervision.memory_guard import MemoryGuard
from launcher.supervision.output import JsonLines
from launcher.supervision.phases import Phases
from launcher.supervision.process import Command, LineSink
from launcher.supervision.readiness import HealthProbe
from launcher.supervision.supervisor import Limits, Supervisor, Surroundings
from launcher.supervision.tasks import cancel
from launcher.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is started once everything is in its place.

    Attributes:
        api: from ``Workspace.commands`` or ``Workspace.api_alone``.
        engine: the same; None when the engines are somebody else's.
        model: the name that requests use.
        guard_floor: bytes that must stay available, from ``memory_guard.guard_floor``; None watches nothing.
    """

    api: Command
    engine: Command | None
    model: str
    guard_floor: int | None = None


Prepare = Callable[[Workspace, Phases], Prepared]
"""Does everything that comes before the first process; runs in a thread and may take as long as a download does."""


@dataclass(frozen=True, slots=True)
class Session:
    """Everything about a run that is known before it is prepared.

    Attributes:
        secrets: values that no line of output may hold.
        workers: API processes that share the port.
        access: what guards the port.
        jsonl: everything is written as JSON Lines, the output of the processes included.
    """

    host: str
    port: int
    limits: Limits
    reporter: Reporter
    jsonl: bool = False
    secrets: tuple[str, ...] = ()
    workers: int = 1
    access: Access = field(default_factory=Access)

    @classmethod
    def of(cls, loaded: LoadedSettings, reporter: Reporter) -> Session:
        """Return the run that the settings ask for.

        Raises:
            ConfigError: a certificate, its key, or the file of keys cannot be used.
        """
        settings, launch = loaded.settings, loaded.settings.launch
        limits = Limits(
            start_timeout_s=launch.start_timeout_s, grace_s=launch.shutdown_grace_s, max_restarts=launch.max_restarts
        )
        server, workers, jsonl = settings.server, settings.processes.workers, settings.log.jsonl
        access = Access.of(settings)
        return cls(server.host, server.port, limits, reporter, jsonl, loaded.secrets, workers, access)

    def run(self, prepare: Prepare) -> None:
        """Serve until told to stop.

        Raises:
            LaunchError: the port cannot be used, or something can never start, or crashed too often.
        """
        with open_listener(self.host, self.port) as listener:
            workspace = Workspace.create(listener.fileno(), self.access.keys)
            try:
                front = partial(Front, listener, tls=self.access.tls, marker=workspace.front_path)
                asyncio.run(self._run(prepare, workspace, front))
            finally:
                workspace.remove()
        self.reporter.stopped()

    async def _run(
        self, prepare: Prepare, workspace: Workspace, make_front: Callable[[Callable[[], dict[str, object]]], Front]
    ) -> None:
        phases = Phases(workspace, self.reporter)
        front = make_front(lambda: public_facts(phases.current) if self.access.is_closed else phases.current)
        sink: LineSink | None = JsonLines(Redactor(self.secrets)) if self.jsonl else None
        around = Surroundings(front=front, sink=sink, phases=phases)
        probe = HealthProbe(self.host, self.port, self.access.tls is not None)
        model: list[str] = []

        def tell_ready() -> None:
            self.reporter.ready(probe.url, model[0], needs_key=self.access.needs_key)

        supervisor = Supervisor(workspace, probe, self.limits, tell_ready, around)
        supervisor.take_signals()
        phases.enter("starting")
        front.resume()
        try:
            prepared = await _unless_stopped(supervisor, lambda: prepare(workspace, phases))
            if prepared is None:
                return
            model.append(prepared.model)
            if prepared.guard_floor is not None:
                around.guard = MemoryGuard(prepared.guard_floor, lambda: host_memory().available)
            await supervisor.run(replace(prepared.api, copies=self.workers), prepared.engine)
        finally:
            await front.finish()


async def _unless_stopped(supervisor: Supervisor, work: Callable[[], Prepared]) -> Prepared | None:
    """Run ``work`` in a thread; return None when a signal to stop comes first.

    The thread is a daemon: a download that is cut off goes on at the next start, so nothing has to wait for it.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Prepared] = loop.create_future()

    def settle(value: Prepared | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        elif value is not None:
            result.set_result(value)

    def run() -> None:
        value: Prepared | None = None
        failure: BaseException | None = None
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: it is raised again by whoever waits
            failure = error
        # The loop is closed when a stop came first.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="prepare", daemon=True).start()
    stopping = asyncio.create_task(supervisor.stopped())
    either: list[asyncio.Future[Any]] = [result, stopping]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return result.result() if result.done() else None
    finally:
        await cancel([stopping])
        result.cancel()
