"""A launcher's session with stand-ins for the API and the engine: ``python session_process.py FOLDER PORT BEHAVIOUR``.

It ends as ``gemma4-nim serve`` would: with the exit code of what stopped it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from launcher.errors import LaunchError
from launcher.report import Reporter
from launcher.supervision.memory_guard import GIB
from launcher.supervision.phases import Phases
from launcher.supervision.process import Command
from launcher.supervision.session import Prepared, Session
from launcher.supervision.supervisor import Limits
from launcher.workspace import Workspace
from tests.fakes import health_server


def main() -> int:
    """Run until it ends by itself."""
    folder, port, behaviour = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    reporter = Reporter(jsonl=True)

    def prepare(workspace: Workspace, _: Phases) -> Prepared:
        (workspace.folder / "port").write_text(str(port))
        (workspace.folder / "listen_fd").write_text(str(workspace.listen_fd))
        (folder / "workspace").write_text(str(workspace.folder))
        program = (sys.executable, health_server.__file__)
        api = Command("api", (*program, "api", str(workspace.folder)), dict(os.environ), (workspace.listen_fd or 0,))
        engine = Command("engine", (*program, "engine", str(workspace.folder), behaviour), dict(os.environ))
        # With so much to be left free, no machine has enough.
        return Prepared(api, engine, "model", 2**20 * GIB if behaviour == "guarded" else None)

    try:
        Session("127.0.0.1", port, Limits(30, 5, 1), reporter).run(prepare)
    except LaunchError as error:
        reporter.failure(error)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
