"""The command itself: runs all checks, shows what they found, and ends with what a start would end with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from config.environment import LoadedSettings, load_settings
from config.errors import ConfigError
from launcher.commands.choice import Scenery, look_around
from launcher.commands.doctor.engine_checks import check_engines
from launcher.commands.doctor.findings import Finding, Status, doubt, failure, fine, note
from launcher.commands.doctor.machine_checks import (
    check_clock,
    check_gpus,
    check_limits,
    check_processor,
    check_shared_memory,
    check_temporary_folder,
)
from launcher.commands.doctor.model_checks import addresses_to_ask, check_cache, check_files, check_plan, plan_for
from launcher.commands.doctor.network_checks import check_network
from launcher.commands.doctor.transport_checks import check_remote, check_transport
from launcher.commands.options import AsJson
from launcher.commands.settled import settled
from launcher.commands.storage import is_offline
from launcher.errors import ExitCode, LaunchError
from launcher.plan.planner import Plan
from launcher.remote import is_remote
from launcher.supervision.listener import open_listener

WIDTH: Final = 120
MARKS: Final = {
    Status.OK: ("✓", "green"),
    Status.NOTE: ("·", "cyan"),
    Status.WARNING: ("!", "yellow"),
    Status.FAILURE: ("✗", "bold red"),
}


def doctor(
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out what is as it should be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything that could stop a start, and say what repairs it.

    Settings, port, GPUs and driver, processor, memory, engine, model files, cache, disk, shared memory, limits, clock,
    temporary files; names, proxy and connections only where something has to be downloaded and may be. Nothing is
    changed, apart from a test file in the cache that is removed again.

    The status is 0 when a start would work, else the one that it would end with.
    """
    found: list[Finding] = []
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
    for finding in _findings():
        found.append(finding)
        if not as_json and not (quiet and finding.status in (Status.OK, Status.NOTE)):
            _show(console, finding)
    failures = [finding for finding in found if finding.status is Status.FAILURE]
    if as_json:
        record = {"ok": not failures, "findings": [finding.record() for finding in found]}
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        _sum_up(console, found)
    if failures:
        raise typer.Exit(int(failures[0].code))


def _findings() -> Iterator[Finding]:
    """Yield what each check finds, the settings first: with bad ones the rest is looked at with the usual ones."""
    scenery: Scenery | None = None
    try:
        loaded = load_settings()
        yield from _settings(loaded)
        scenery = look_around(loaded)
    except ConfigError as error:
        yield from _refused(error)
    scenery = scenery or look_around(load_settings(environ={}))
    yield from _port(scenery)
    yield from check_gpus(scenery.system, scenery.engines)
    yield from check_processor(scenery.system)
    plan = None if is_remote(scenery.settings) else plan_for(scenery)
    if is_remote(scenery.settings):
        yield from check_remote(scenery.settings)
    else:
        yield from check_engines()
        yield from check_transport(scenery.settings)
        yield from check_plan(plan)
        yield from check_files(scenery, plan)
    yield from check_cache(scenery)
    yield from check_shared_memory(plan if isinstance(plan, Plan) else None)
    yield from check_limits()
    yield from check_temporary_folder()
    yield from check_clock()
    if not is_remote(scenery.settings):
        yield from _network(scenery, plan)


def _settings(loaded: LoadedSettings) -> Iterator[Finding]:
    try:
        warnings = settled(loaded)
    except ConfigError as error:
        yield from _refused(error)
        return
    for warning in warnings:
        yield doubt("settings", warning, "correct it, or unset it")
    if not warnings:
        names = ", ".join(sorted(loaded.variables))
        yield fine("settings", f"all understood: {names}" if names else "none given")


def _refused(error: ConfigError) -> Iterator[Finding]:
    for problem in error.problems:
        yield failure("settings", LaunchError(ExitCode.BAD_SETTINGS, problem, "correct it, or unset it"))


def _port(scenery: Scenery) -> Iterator[Finding]:
    server = scenery.settings.server
    try:
        open_listener(server.host, server.port).close()
    except LaunchError as error:
        yield failure("port", error)
    else:
        yield fine("port", f"{server.port} on {server.host} is free")


def _network(scenery: Scenery, plan: Plan | LaunchError | None) -> Iterator[Finding]:
    settings = scenery.settings
    if is_offline(settings):
        yield fine("network", "not used: NIM_OFFLINE or NIM_DISABLE_MODEL_DOWNLOAD is set")
        return
    uris = addresses_to_ask(scenery, plan)
    if uris:
        yield from check_network(settings, uris)
    else:
        yield note("network", "not looked at: nothing has to be downloaded")


def _show(console: Console, finding: Finding) -> None:
    mark, style = MARKS[finding.status]
    console.print(Text.assemble((f"{mark} ", style), (f"{finding.check:15} ", "bold"), finding.what))
    if finding.remedy:
        console.print(Text(f"  {'':15} -> {finding.remedy}", style))


def _sum_up(console: Console, found: list[Finding]) -> None:
    failures = sum(finding.status is Status.FAILURE for finding in found)
    warnings = sum(finding.status is Status.WARNING for finding in found)
    if failures:
        text = f"{failures} thing{'s' if failures > 1 else ''} would stop a start"
        console.print(Text(text, "bold red"))
    else:
        doubts = f", {warnings} thing{'s' if warnings > 1 else ''} to look at" if warnings else ""
        console.print(Text(f"a start would work{doubts}", "bold green"))
