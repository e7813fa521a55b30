"""A start of the API alone, over the engines that ``NIM_ENGINE_ENDPOINTS`` names: nothing is planned or downloaded."""

from __future__ import annotations

from dataclasses import dataclass

from config.environment import LoadedSettings
from launcher.banner import Banner
from launcher.remote import RemotePlan, plan_remote
from launcher.report import Reporter
from launcher.supervision.session import Prepared, Session
from launcher.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RemoteStart:
    """One start: the settings, and who is told."""

    loaded: LoadedSettings
    reporter: Reporter

    def show(self, *, as_json: bool) -> None:
        """Show what would be started.

        Raises:
            LaunchError: it cannot be.
        """
        plan = plan_remote(self.loaded.settings)
        if as_json:
            self.reporter.document(plan.record())
        else:
            self.reporter.remote(plan)

    def serve(self) -> None:
        """Serve until told to stop.

        Raises:
            LaunchError: it can never start, or failed too often.
        """
        plan = plan_remote(self.loaded.settings)
        if not self.loaded.settings.log.disable_banner:
            self.reporter.banner(Banner(plan.names[0]))
        self.reporter.remote(plan)
        session = Session.of(self.loaded, self.reporter)
        session.run(lambda workspace, _: self._prepared(plan, workspace))

    def _prepared(self, plan: RemotePlan, workspace: Workspace) -> Prepared:
        return Prepared(workspace.api_alone(plan, self.loaded.variables), None, plan.names[0])
