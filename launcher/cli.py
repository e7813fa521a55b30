"""The command line: ``gemma4-nim serve`` and its options. It composes the parts; each part does its own work."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from config.environment import LoadedSettings, load_settings
from config.errors import ConfigError
from config.logs import configure_logging
from launcher.errors import ExitCode, LaunchError
from launcher.machine import check_port, detect_machine
from launcher.model import find_model
from launcher.plan import Plan, Refusal, make_plan
from launcher.readiness import HealthProbe
from launcher.report import Reporter, plan_record
from launcher.supervisor import Limits, Supervisor
from launcher.tokenizer_cache import rebuilt_tokenizer
from launcher.workspace import Workspace

app = typer.Typer(
    name="gemma4-nim",
    help="Serve Google's Gemma 4 behind an OpenAI-style API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    # With a callback typer keeps "serve" a command of its own although it is the only one.
    pass


@app.command()
def serve(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
    port: Annotated[int | None, typer.Option(help="TCP port; wins over NIM_SERVER_PORT.")] = None,
    model_path: Annotated[
        Path | None, typer.Option(help="GGUF file or folder; wins over NIM_MODEL_PATH.", show_default=False)
    ] = None,
) -> None:
    """Start the server; every setting is a NIM_* variable, listed in docs/configuration.md."""
    overrides = {
        name: str(value)
        for name, value in (("NIM_SERVER_PORT", port), ("NIM_MODEL_PATH", model_path))
        if value is not None
    }
    raise typer.Exit(int(launch(overrides, dry_run=dry_run, as_json=as_json)))


def launch(overrides: dict[str, str], *, dry_run: bool, as_json: bool) -> ExitCode:
    """Load, plan, and unless ``dry_run`` run until stopped; failures are reported, never raised."""
    reporter = Reporter(jsonl=False)
    try:
        loaded = load_settings(overrides)
        reporter = Reporter(jsonl=as_json or loaded.settings.log.jsonl)
        configure_logging(loaded.settings.log, "launcher")
        plan = _plan(loaded, reporter)
        if as_json and dry_run:
            sys.stdout.write(json.dumps(plan_record(plan), indent=2) + "\n")
        else:
            reporter.plan(plan)
        if not dry_run:
            _run(loaded, plan, overrides, reporter)
    except ConfigError as error:
        for problem in error.problems:
            reporter.failure(LaunchError(ExitCode.BAD_SETTINGS, problem))
        return ExitCode.BAD_SETTINGS
    except LaunchError as error:
        reporter.failure(error)
        return error.code
    return ExitCode.OK


def _plan(loaded: LoadedSettings, reporter: Reporter) -> Plan:
    for warning in loaded.warnings:
        reporter.warning(warning)
    plan = make_plan(loaded.settings, detect_machine(), find_model(loaded.settings.model))
    if isinstance(plan, Refusal):
        raise LaunchError(ExitCode.CANNOT_START, plan.reason, plan.remedy)
    return plan


def _run(loaded: LoadedSettings, plan: Plan, overrides: dict[str, str], reporter: Reporter) -> None:
    check_port(plan.host, plan.port)
    tokenizer = plan.model.tokenizer or rebuilt_tokenizer(plan.model.weights, loaded.settings.model.cache_path)
    workspace = Workspace.create()
    try:
        api, engine = workspace.commands(plan, tokenizer, overrides)
        probe = HealthProbe(plan.host, plan.port)
        launch_settings = loaded.settings.launch
        limits = Limits(
            start_timeout_s=launch_settings.start_timeout_s,
            grace_s=launch_settings.shutdown_grace_s,
            max_restarts=launch_settings.max_restarts,
        )

        async def run() -> None:
            ready = lambda: reporter.ready(probe.url, plan.model.names[0])  # noqa: E731
            await Supervisor(workspace, probe, limits, ready).run(api, engine)

        asyncio.run(run())
    finally:
        workspace.remove()
    reporter.stopped()
