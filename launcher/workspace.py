"""The private folder of one run: the records handed to the processes, the engine's socket, and the phase file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.environment import child_environment
from config.runtime import ApiRuntime, EngineRuntime
from launcher.plan.planner import Plan
from launcher.supervision.process import Command

_FIRST_PART: Final = "-00001-of-"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder that only this user may enter; it lives as long as the launcher.

    Attributes:
        listen_fd: the listening socket that the API inherits; None makes it open the port itself.
    """

    folder: Path
    listen_fd: int | None = None

    @classmethod
    def create(cls, listen_fd: int | None = None) -> Workspace:
        """Make a new one. The name is short because a socket's path may have 107 bytes at most."""
        return cls(Path(tempfile.mkdtemp(prefix="g4nim-")), listen_fd)

    @property
    def status_path(self) -> Path:
        """Return the file in which the launcher tells its phase."""
        return self.folder / "status.json"

    def commands(self, plan: Plan, tokenizer: Path, variables: Mapping[str, str]) -> tuple[Command, Command]:
        """Write both records and return the commands that start the API and the engine.

        Args:
            plan: what to start.
            tokenizer: the model's ``tokenizer.json``.
            variables: all settings, ``config.environment.LoadedSettings.variables``.
        """
        endpoint = f"unix:{self.folder / 'engine.sock'}"
        engine = EngineRuntime(
            model_path=plan.model.weights,
            mmproj_path=plan.model.projector,
            tokenizer_path=tokenizer,
            endpoint=endpoint,
            context_tokens=plan.context_tokens,
            max_sequences=plan.max_sequences,
            max_queued=plan.max_queued,
            threads=plan.threads,
        )
        api = ApiRuntime(
            engine_endpoints=(endpoint,),
            tokenizer_path=tokenizer,
            served_names=plan.model.names,
            created=int(plan.model.weights.stat().st_mtime),
            listen_fd=self.listen_fd,
            status_path=self.status_path,
        )
        environment = child_environment(variables)
        inherited = () if self.listen_fd is None else (self.listen_fd,)
        loads = tuple(file for file in (*_parts(plan.model.weights), plan.model.projector) if file is not None)
        return (
            Command("api", self._record("api", api.model_dump_json(indent=2)), environment, inherited),
            Command("engine", self._record("engine", engine.model_dump_json(indent=2)), environment, loads=loads),
        )

    def write_phase(self, phase: str, **facts: Any) -> None:
        """Tell the API what is going on until the model is ready."""
        record = {"phase": phase, "since": int(time.time()), **facts}
        # Renamed into place: the API may read at any moment.
        partial = self.status_path.with_suffix(".partial")
        partial.write_text(json.dumps(record), encoding="utf-8")
        os.replace(partial, self.status_path)  # noqa: PTH105 - Path.replace is the same call

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self, package: str, record: str) -> tuple[str, ...]:
        path = self.folder / f"{package}.json"
        path.write_text(record, encoding="utf-8")
        return (sys.executable, "-m", package, "--runtime", str(path))


def _parts(weights: Path) -> list[Path]:
    if _FIRST_PART not in weights.name:
        return [weights]
    return sorted(weights.parent.glob(weights.name.replace(_FIRST_PART, "-?????-of-")))
