"""What ``nim-serve`` does: plan, then run a session that fetches the model, starts the processes and watches them.

The rules are elsewhere: the choice in the plan, the download in ``launcher.download``, the watching in
``launcher.supervision.supervisor``. Here they follow each other, and every failure becomes one line and an exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from config.environment import load_settings
from config.errors import ConfigError
from config.logs import configure_logging
from config.variants import PROFILES
from launcher.banner import Banner
from launcher.cache.tokenizers import rebuilt_tokenizer
from launcher.commands.choice import (
    Scenery,
    accepted,
    check_own_files,
    look_around,
    own_plan,
    profile_plan,
    wants_profile,
)
from launcher.commands.fetching import fetch_profile, fetch_uri
from launcher.commands.settled import settled
from launcher.commands.start_remote import RemoteStart
from launcher.errors import ExitCode, LaunchError
from launcher.model import ModelFiles, find_model
from launcher.plan.adapters import check_adapter_folder
from launcher.plan.own_model import plan_own_model
from launcher.plan.planner import Plan
from launcher.remote import is_remote
from launcher.report import Reporter, plan_record
from launcher.supervision.memory_guard import guard_floor
from launcher.supervision.phases import Phases
from launcher.supervision.session import Prepared, Session
from launcher.triton import engine_program, find_triton
from launcher.workspace import Workspace


def launch(arguments: Sequence[str], *, dry_run: bool, as_json: bool) -> ExitCode:
    """Load, plan, and unless ``dry_run`` serve until stopped; failures are reported, never raised.

    Args:
        arguments: settings from the command line, see ``config.settings_flags``.
        dry_run: show the plan and end.
        as_json: write JSON instead of text.
    """
    reporter = Reporter(jsonl=as_json)
    try:
        loaded = load_settings(arguments=arguments)
        reporter = Reporter(jsonl=as_json or loaded.settings.log.jsonl, secrets=loaded.secrets)
        configure_logging(loaded.settings.log, "launcher", loaded.secrets)
        for warning in settled(loaded):
            reporter.warning(warning)
        start = RemoteStart(loaded, reporter) if is_remote(loaded.settings) else _Start(look_around(loaded), reporter)
        if dry_run:
            start.show(as_json=as_json)
        else:
            start.serve()
    except ConfigError as error:
        reporter = Reporter(jsonl=as_json or error.jsonl)
        for problem in error.problems:
            reporter.failure(LaunchError(ExitCode.BAD_SETTINGS, problem))
        return ExitCode.BAD_SETTINGS
    except LaunchError as error:
        reporter.failure(error)
        return error.code
    return ExitCode.OK


@dataclass(frozen=True, slots=True)
class _Start:
    """One start: where it takes place, and who is told."""

    scenery: Scenery
    reporter: Reporter

    def show(self, *, as_json: bool) -> None:
        """Show what would be started, as far as it is known without a download."""
        plan = self._plan()
        if as_json:
            record = {"model": {"uri": self._uri}, "plan": "after the download"} if plan is None else plan_record(plan)
            self.reporter.document(record)
        elif plan is None:
            self.reporter.after_download(str(self._uri))
        else:
            self.reporter.plan(plan)

    def serve(self) -> None:
        """Serve until told to stop.

        Raises:
            LaunchError: something can never start, or failed too often.
        """
        loaded, settings = self.scenery.loaded, self.scenery.settings
        plan = self._plan()
        if not settings.log.disable_banner:
            self.reporter.banner(self._banner(plan))
        if plan is not None:
            self.reporter.plan(plan)
        Session.of(loaded, self.reporter).run(lambda workspace, phases: self._prepare(plan, workspace, phases))

    @property
    def _uri(self) -> str | None:
        return self.scenery.settings.model.uri

    def _plan(self) -> Plan | None:
        """Return the plan; None for a model that has to be downloaded before it can be looked at.

        Raises:
            LaunchError: it cannot be carried out here.
        """
        transport = self.scenery.settings.transport
        if transport.kind == "triton":
            find_triton(transport)
        check_adapter_folder(self.scenery.settings)
        if wants_profile(self.scenery):
            return accepted(profile_plan(self.scenery))
        return None if self._uri is not None else own_plan(self.scenery)

    def _banner(self, plan: Plan | None) -> Banner:
        if plan is None:
            return Banner(str(self._uri))
        is_demo = plan.profile is None and plan.names[0] in PROFILES
        return Banner(plan.names[0], is_demo, plan.profile.precision if plan.profile else None)

    def _prepare(self, plan: Plan | None, workspace: Workspace, phases: Phases) -> Prepared:
        """Do everything that comes before the first process."""
        ready = self._with_files(plan, phases)
        if plan is None:
            self.reporter.plan(ready)
        tokenizer = ready.model.tokenizer or rebuilt_tokenizer(ready.model.weights, self.scenery.settings.cache.path)
        program = engine_program(self.scenery.settings.transport)
        api, engine = workspace.commands(ready, tokenizer, self.scenery.loaded.variables, program)
        unified = any(gpu.unified_memory for gpu in ready.gpus)
        guard = self.scenery.settings.memory.guard_gib
        floor = guard_floor(guard, self.scenery.system.memory_total, unified=unified)
        return Prepared(api, engine, ready.names[0], floor)

    def _with_files(self, plan: Plan | None, phases: Phases) -> Plan:
        """Return the plan with its files, fetched if they are not here."""
        settings = self.scenery.settings
        if plan is None:
            folder = fetch_uri(str(self._uri), settings, phases)
            return accepted(plan_own_model(settings, self.scenery.system, self._found(folder)))
        if plan.profile is None:
            check_own_files(settings, phases)
            return plan
        folder = fetch_profile(plan.profile, settings, phases)
        return plan.with_files(replace(self._found(folder), names=plan.names))

    def _found(self, folder: Path) -> ModelFiles:
        model = self.scenery.settings.model.model_copy(update={"path": folder, "uri": None})
        return replace(find_model(model), why="downloaded")
