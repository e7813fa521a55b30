"""A scripted engine behind the real ``tritonserver``: scripts are played in the test's process, Triton carries them."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import grpc

from config.runtime import EngineRuntime
from engine.triton.protocol import MODEL_NAME, GRPCInferenceServiceStub, service_pb2
from engine.triton.server_process import SHARED_MEMORY, segment_prefix
from tests.fakes.processes import wait_until
from tests.fakes.scripted_engine import ScriptedCore, ScriptedEngine

START_TIMEOUT_S = 90.0
KILL_TIMEOUT_S = 20.0
CALL_TIMEOUT_S = 5.0


class TritonEngine:
    """Like ``ScriptedEngine``, in an environment that holds Triton; a context manager."""

    def __init__(self, socket_path: Path, python: Path) -> None:
        # Socket paths are limited to 107 bytes, and Triton adds to the name.
        self._folder = tempfile.TemporaryDirectory(prefix="relay")
        self._scripted = ScriptedEngine(socket_path)
        self.endpoint = f"unix:{self._folder.name}/t"
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._log = socket_path.with_name("triton.log")

    @property
    def core(self) -> ScriptedCore:
        """The core: scripts in, requests out."""
        return self._scripted.core

    def __enter__(self) -> Self:
        """Serve."""
        self._scripted.__enter__()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.stop()
        self._scripted.__exit__()
        self._folder.cleanup()

    def stop(self) -> None:
        """Kill Triton and the model, as no engine process ever ends by itself."""
        if self._process is not None:
            process, self._process = self._process, None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(KILL_TIMEOUT_S)
            # The next start at this address would do that; after the last one nobody does.
            for segment in SHARED_MEMORY.glob(f"{segment_prefix(self.endpoint)}*"):
                segment.unlink(missing_ok=True)

    def start(self) -> None:
        """Start Triton, and wait until it has loaded the model."""
        self.stop()
        runtime = EngineRuntime(
            model_path=Path("/nowhere"), tokenizer_path=Path("/nowhere"), endpoint=self.endpoint, context_tokens=1
        )
        path = Path(self._folder.name) / "runtime.json"
        path.write_text(runtime.model_dump_json())
        command = [str(self._python), "-m", "tests.fakes.relayed_triton", str(path), self._scripted.endpoint]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        process = self._process
        wait_until(
            lambda: process.poll() is not None or is_model_ready(self.endpoint),
            deadline_s=START_TIMEOUT_S,
            what="Triton ready",
        )
        self.check()

    def check(self) -> None:
        """See that Triton has not ended by itself.

        Raises:
            RuntimeError: it has; the message holds what it wrote.
        """
        if self._process is not None and self._process.poll() is not None:
            message = f"Triton has ended with {self._process.returncode}:\n{self._log.read_text(errors='replace')}"
            raise RuntimeError(message)


def is_model_ready(endpoint: str) -> bool:
    """Tell whether an engine, in Triton or not, has loaded its model.

    It is asked through the half of gRPC that knows no event loop: the other half serves one loop of a process only.
    """
    with grpc.insecure_channel(endpoint) as channel:
        try:
            request = service_pb2.ModelReadyRequest(name=MODEL_NAME)
            return bool(GRPCInferenceServiceStub(channel).ModelReady(request, timeout=CALL_TIMEOUT_S).ready)
        except grpc.RpcError:
            return False
