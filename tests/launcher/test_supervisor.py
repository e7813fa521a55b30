"""Starting, watching, restarting and stopping processes, with stand-ins for the API and the engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ExitCode, LaunchError
from launcher.supervision.process import Command
from launcher.supervision.readiness import HealthProbe
from launcher.supervision.supervisor import Limits, Supervisor
from launcher.workspace import Workspace
from tests.fakes import health_server
from tests.fakes.processes import free_port

DEADLINE_S = 100.0


@dataclass
class Stage:
    """One supervised pair of stand-ins, and what became of it."""

    folder: Path
    port: int
    ready: list[bool] = field(default_factory=list)

    def command(self, role: str, behaviour: str = "") -> Command:
        arguments = (sys.executable, health_server.__file__, role, str(self.folder), behaviour)
        return Command(role, arguments, dict(os.environ))

    def run(
        self,
        api: str = "",
        engine: str = "",
        limits: Limits | None = None,
        during: Callable[[Stage], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Run the supervisor; ``during`` runs beside it and ends by sending a signal."""
        workspace = Workspace(self.folder)
        limits = limits or Limits(start_timeout_s=DEADLINE_S, grace_s=DEADLINE_S, max_restarts=3)
        supervisor = Supervisor(workspace, HealthProbe("127.0.0.1", self.port), limits, lambda: self.ready.append(True))

        async def both() -> None:
            beside = asyncio.create_task(during(self)) if during else None
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await supervisor.run(self.command("api", api), self.command("engine", engine))
            finally:
                if beside is not None:
                    beside.cancel()
                    await asyncio.gather(beside, return_exceptions=True)

        asyncio.run(both())

    def events(self) -> list[str]:
        path = self.folder / "events.txt"
        return path.read_text().splitlines() if path.exists() else []

    def engine_pid(self) -> int:
        return int((self.folder / "engine.pid").read_text())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.02)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    port = free_port()
    (tmp_path / "port").write_text(str(port))
    return Stage(tmp_path, port)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_api_before_the_engine(stage: Stage, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end both; the API goes first, while the engine still serves its requests."""

    async def stop_when_ready(stage: Stage) -> None:
        await stage.until(lambda: bool(stage.ready))
        signal.raise_signal(number)

    stage.run(during=stop_when_ready)

    assert stage.ready == [True]
    assert stage.events() == ["engine started", "api stopped, engine runs", "engine stopped"]
    assert _is_gone(stage.engine_pid())


def test_killed_engine_is_started_again(stage: Stage) -> None:
    """An engine that dies after it was ready is replaced within seconds; ready is announced once."""

    async def kill_then_stop(stage: Stage) -> None:
        await stage.until(lambda: bool(stage.ready))
        first = stage.engine_pid()
        os.kill(first, signal.SIGKILL)
        await stage.until(lambda: stage.engine_pid() != first)
        await stage.until(lambda: '"ready"' in (stage.folder / "status.json").read_text())
        signal.raise_signal(signal.SIGTERM)

    stage.run(during=kill_then_stop)

    assert stage.events().count("engine started") == 2
    assert stage.ready == [True]


def test_engine_that_crashes_for_ever_ends_the_launcher(stage: Stage) -> None:
    """After the allowed number of crashes the launcher gives up with the engine's own exit code."""
    with pytest.raises(LaunchError) as caught:
        stage.run(
            engine="crashes-when-ready", limits=Limits(start_timeout_s=DEADLINE_S, grace_s=DEADLINE_S, max_restarts=1)
        )

    assert caught.value.code is ExitCode.ENGINE_FAILED
    assert "killed by SIGSEGV" in caught.value.message
    assert stage.events().count("engine started") == 2


def test_a_program_that_is_not_there(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the system does not even start is named, with the system's reason."""
    genuine = stage.command
    missing = Command("engine", (str(stage.folder / "absent"),), {})
    monkeypatch.setattr(stage, "command", lambda role, _="": missing if role == "engine" else genuine(role))
    with pytest.raises(LaunchError, match="the engine process could not be started: No such file") as caught:
        stage.run()

    assert caught.value.code is ExitCode.ENGINE_FAILED


def test_engine_that_cannot_load_is_not_tried_again(stage: Stage) -> None:
    """An engine that gives up by itself before it was ever ready would do so for ever."""
    with pytest.raises(LaunchError) as caught:
        stage.run(engine="exit-1")

    assert caught.value.code is ExitCode.CANNOT_START
    assert stage.ready == []


def test_engine_killed_while_loading_means_out_of_memory(stage: Stage) -> None:
    """SIGKILL from outside during the load, twice, is what the kernel does when memory runs out."""
    with pytest.raises(LaunchError) as caught:
        stage.run(engine="killed")

    assert caught.value.code is ExitCode.OUT_OF_MEMORY
    assert "memory" in caught.value.message


def test_api_that_cannot_start_ends_the_launcher_and_the_engine(stage: Stage) -> None:
    """Without an API there is nothing to serve; the engine does not stay behind."""
    with pytest.raises(LaunchError) as caught:
        stage.run(api="exit-1")

    assert caught.value.code is ExitCode.API_FAILED
    assert not (stage.folder / "engine.pid").exists() or _is_gone(stage.engine_pid())


def test_model_that_is_never_ready_times_out(stage: Stage) -> None:
    """Every wait has a deadline."""
    with pytest.raises(LaunchError) as caught:
        stage.run(api="never-ready", limits=Limits(start_timeout_s=0.5, grace_s=DEADLINE_S, max_restarts=3))

    assert caught.value.code is ExitCode.START_TIMEOUT
    assert "NIM_START_TIMEOUT_SECONDS" in caught.value.remedy


def test_second_signal_does_not_wait(stage: Stage) -> None:
    """Ctrl-C twice ends processes that do not react to the first."""

    async def twice(stage: Stage) -> None:
        await stage.until(lambda: bool(stage.ready))
        signal.raise_signal(signal.SIGINT)
        timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
        timer.daemon = True
        timer.start()

    stage.run(
        api="stubborn", limits=Limits(start_timeout_s=DEADLINE_S, grace_s=DEADLINE_S, max_restarts=3), during=twice
    )

    assert _is_gone(stage.engine_pid())


def test_phase_is_told_to_the_api(stage: Stage) -> None:
    """The phase file goes from starting to ready, and ends with stopping."""
    seen: list[str] = []

    async def watch(stage: Stage) -> None:
        path = stage.folder / "status.json"
        await stage.until(path.exists)
        while not stage.ready:
            seen.append(path.read_text())
            await asyncio.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)

    stage.run(during=watch)

    assert any('"loading"' in text or '"starting"' in text for text in seen)
    assert '"stopping"' in (stage.folder / "status.json").read_text()
