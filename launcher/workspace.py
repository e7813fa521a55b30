"""The private folder of one run: the records handed to the processes, the engine's socket, and the phase file."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from config.api_keys import ApiKey
from config.environment import child_environment
from config.manifest_source import DRAFT_FOLDER
from config.runtime import AdapterRuntime, ApiRuntime, EngineRuntime
from launcher.engine_devices import check_devices, device_environment
from launcher.errors import ExitCode, LaunchError
from launcher.plan.planner import Plan
from launcher.remote import RemotePlan
from launcher.supervision.process import Command
from launcher.triton import EMBEDDED, EngineProgram

logger = logging.getLogger(__name__)

_FIRST_PART: Final = "-00001-of-"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder that only this user may enter; it lives as long as the launcher.

    Attributes:
        listen_fd: the listening socket that the API inherits; None makes it open the port itself.
        api_keys: what is kept of the keys that open the server.
    """

    folder: Path
    listen_fd: int | None = None
    api_keys: tuple[ApiKey, ...] = ()

    @classmethod
    def create(cls, listen_fd: int | None = None, api_keys: tuple[ApiKey, ...] = ()) -> Workspace:
        """Make a new one. The name is short because a socket's path may have 107 bytes at most.

        Raises:
            LaunchError: there is no folder for temporary files that can be written.
        """
        try:
            folder = Path(tempfile.mkdtemp(prefix="g4nim-"))
        except OSError as error:
            raise unwritable(error) from error
        return cls(folder, listen_fd, api_keys)

    @property
    def status_path(self) -> Path:
        """Return the file in which the launcher tells its phase."""
        return self.folder / "status.json"

    @property
    def front_path(self) -> Path:
        """Return the file that is there while the launcher, too, answers on the listening socket."""
        return self.folder / "front"

    def commands(
        self, plan: Plan, tokenizer: Path, variables: Mapping[str, str], program: EngineProgram = EMBEDDED
    ) -> tuple[Command, Command]:
        """Write both records and return the commands that start the API and the engine.

        Args:
            plan: what to start.
            tokenizer: the model's ``tokenizer.json``.
            variables: all settings, ``config.environment.LoadedSettings.variables``.
            program: what starts an engine process, from ``launcher.triton.engine_program``.
        """
        endpoint = program.endpoint or f"unix:{self.folder / 'engine.sock'}"
        engine = _engine_runtime(plan, tokenizer, endpoint)
        api = ApiRuntime(
            engine_endpoints=(endpoint,),
            tokenizer_path=tokenizer,
            served_names=plan.model.names,
            created=int(plan.model.weights.stat().st_mtime),
            listen_fd=self.listen_fd,
            api_keys=self.api_keys,
            status_path=self.status_path,
            front_path=None if self.listen_fd is None else self.front_path,
            profile_id=plan.profile.id if plan.profile else "",
            model_urls=tuple(file.uri for file in plan.profile.files) if plan.profile else (),
            adapters=plan.adapters is not None,
        )
        environment = child_environment(variables)
        loads = tuple(file for file in (*_parts(plan.model.weights), plan.model.projector) if file is not None)
        return (
            self._api(api, environment),
            Command(
                "engine",
                self._record("engine", engine, program.command),
                self._engine(plan, environment),
                loads=loads,
                check=functools.partial(check_devices, plan.gpus) if plan.gpus else None,
            ),
        )

    def api_alone(self, plan: RemotePlan, variables: Mapping[str, str]) -> Command:
        """Write the API's record and return the command that starts it over engines that are somebody else's."""
        api = ApiRuntime(
            engine_endpoints=plan.endpoints,
            connection=plan.connection,
            tokenizer_path=plan.tokenizer,
            served_names=plan.names,
            created=int(plan.tokenizer.stat().st_mtime),
            listen_fd=self.listen_fd,
            api_keys=self.api_keys,
            status_path=self.status_path,
            front_path=None if self.listen_fd is None else self.front_path,
            # Whoever started the engines knows whether they have adapters.
            adapters=True,
        )
        return self._api(api, child_environment(variables))

    def write_phase(self, phase: str, **facts: Any) -> None:
        """Tell the API what is going on until the model is ready; a full disk costs the news, not the server."""
        record = {"phase": phase, "since": int(time.time()), **facts}
        # Renamed into place: the API may read at any moment.
        partial = self.status_path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(record), encoding="utf-8")
            os.replace(partial, self.status_path)  # noqa: PTH105 - Path.replace is the same call
        except OSError as error:
            logger.warning("the phase %s cannot be written to %s: %s", phase, self.status_path, error.strerror)

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _engine(self, plan: Plan, environment: Mapping[str, str]) -> Mapping[str, str]:
        """Return the environment of the engine: with the GPUs that it gets, and for a bundle with its caches."""
        given = {**environment, **device_environment(plan.gpus)}
        if plan.model.bundle is None:
            return given
        # Imported here: few starts serve a bundle, and its format takes libraries that the others do without.
        from launcher.bundle.planning import engine_variables  # noqa: PLC0415

        return given | engine_variables(plan, self.folder / "caches")

    def _api(self, runtime: ApiRuntime, environment: Mapping[str, str]) -> Command:
        inherited = () if self.listen_fd is None else (self.listen_fd,)
        metrics = self.folder / "metrics"
        metrics.mkdir(exist_ok=True)
        # Where prometheus_client lets processes count together; what one has counted outlives it there.
        counting = {**environment, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        return Command("api", self._record("api", runtime, (sys.executable, "-m", "api")), counting, inherited)

    def _record(self, name: str, record: BaseModel, program: Sequence[str]) -> tuple[str, ...]:
        path = self.folder / f"{name}.json"
        try:
            path.write_text(record.model_dump_json(indent=2), encoding="utf-8")
        except OSError as error:
            raise unwritable(error) from error
        return (*program, "--runtime", str(path))


def unwritable(error: OSError) -> LaunchError:
    """Return what ends a start that has nowhere to put its private files."""
    message = f"there is no writable folder for temporary files: {error.strerror or error}"
    return LaunchError(
        ExitCode.CANNOT_START, message, "mount one, for instance with docker run --tmpfs /tmp, or set TMPDIR"
    )


def _engine_runtime(plan: Plan, tokenizer: Path, endpoint: str) -> EngineRuntime:
    model = plan.model
    record: dict[str, Any] = {
        "adapters": _adapter_runtime(plan),
        "core": plan.core,
        "tokenizer_path": tokenizer,
        "endpoint": endpoint,
        "context_tokens": plan.context_tokens,
        "max_sequences": plan.max_sequences,
        "max_queued": plan.max_queued,
        "threads": plan.threads,
    }
    if model.checkpoint is None:
        record |= {"model_path": model.weights, "mmproj_path": model.projector}
    else:
        record |= {"checkpoint_path": model.checkpoint, "tensor_parallel": plan.tensor_parallel}
        record |= {} if plan.profile is None else {"precision": plan.profile.precision}
        fraction = plan.gpu_memory_fraction
        if fraction is not None:
            graphs = {"batch_tokens": plan.batch_tokens, "cuda_graphs": plan.cuda_graphs}
            record |= {"gpu_memory_fraction": fraction} | graphs
        if plan.profile is not None and plan.profile.mtp:
            record["draft_path"] = model.checkpoint / DRAFT_FOLDER
    if model.bundle is not None:
        from launcher.bundle.planning import engine_fields  # noqa: PLC0415

        record |= engine_fields(model.bundle)
    return EngineRuntime.model_validate(record)


def _adapter_runtime(plan: Plan) -> AdapterRuntime | None:
    adapters = plan.adapters
    if adapters is None or adapters.source is None:
        return None
    return AdapterRuntime(
        source=adapters.source.expanduser().absolute(),
        refresh_s=adapters.refresh_s,
        max_rank=adapters.max_rank,
        max_gpu=adapters.max_gpu,
        max_cpu=adapters.max_cpu,
        reserved_names=plan.model.names,
    )


def _parts(weights: Path) -> list[Path]:
    if _FIRST_PART not in weights.name:
        return [weights]
    return sorted(weights.parent.glob(weights.name.replace(_FIRST_PART, "-?????-of-")))
