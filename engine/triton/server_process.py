"""The process ``tritonserver``: started for one engine, watched, and stopped, with nothing of it left behind."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import logging
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.environment import child_environment
from engine.errors import EngineError, EngineLoadError
from engine.listener_tls import check_files
from engine.process_table import exit_status, is_ending, kill_if, living_children
from engine.triton.installation import find_installation
from engine.triton.repository import write_repository
from engine.triton.server_output import MAX_LINE_BYTES, ServerOutput

if TYPE_CHECKING:
    from config.runtime import EngineRuntime

logger = logging.getLogger("engine.triton")

WATCH_INTERVAL_S = 0.5
STOP_GRACE_S = 4.5
"""The launcher kills an engine that has not ended after 5 s."""
ENDING_S = 30.0
"""How long a server that ends by itself may take; its model's process is gone before."""
EXIT_TIMEOUT_S = 3
"""How long the server may take to end running requests and to unload the model, which takes 2 s with none running."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the backend's segments are, by the kernel's definition
UNIX_PORT = 1
"""Triton puts a port behind every address; it becomes a part of a socket's name."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where Triton serves besides gRPC: ``host:port``, or None for nowhere."""

    http: str | None = None
    metrics: str | None = None


async def serve(runtime: EngineRuntime, listeners: Listeners) -> None:
    """Serve until a signal arrives.

    Raises:
        EngineError: the server is missing, the model cannot be loaded, or the engine stopped working.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="gemma4-triton-") as folder:
        server = TritonServer(runtime, listeners, Path(folder))
        stopping = asyncio.create_task(stop.wait())
        running = asyncio.create_task(server.run())
        try:
            await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            stopping.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop()


class TritonServer:
    """One server process."""

    def __init__(self, runtime: EngineRuntime, listeners: Listeners, folder: Path) -> None:
        """Prepare; ``folder`` is for its files."""
        self._runtime = runtime
        self._listeners = listeners
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._output = ServerOutput()
        self._was_ready = False
        self._models: list[int] = []
        """The server's children when they were first seen."""
        self._segments = segment_prefix(runtime.endpoint)

    async def run(self) -> None:
        """Start it, wait until the model is loaded, then watch it; returns only by raising.

        Raises:
            EngineError: it cannot be started or has ended.
        """
        if self._runtime.tls is not None:
            check_files(self._runtime.tls)
        installation = find_installation()
        self.write_models()
        installation.link_backends(self._folder / "backends")
        self._remove_leftovers()
        self._process = await asyncio.create_subprocess_exec(
            str(installation.server),
            *self._arguments(),
            env=installation.environment(child_environment({})),
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=MAX_LINE_BYTES,
            # It makes one system call and takes no lock that another thread could hold at the fork.
            preexec_fn=_die_with_us,
        )
        self._reading = asyncio.create_task(self._output.read(self._process))
        ended = asyncio.create_task(exit_status(self._process))
        working = asyncio.create_task(self._keep_watch(self._process, ended))
        try:
            await asyncio.wait({ended, working}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            await asyncio.wait({self._reading}, timeout=WATCH_INTERVAL_S)
            self._end_models()
            await self._reading
            raise self._failure(ended.result())
        finally:
            ended.cancel()
            working.cancel()

    def write_models(self) -> None:
        """Write the model repository that the server is to serve."""
        write_repository(self._folder / "models", self._runtime)

    def _arguments(self) -> list[str]:
        address, port = self._grpc_address()
        arguments = [
            f"--model-repository={self._folder / 'models'}",
            f"--backend-directory={self._folder / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._segments}",
            f"--grpc-address={address}",
            f"--grpc-port={port}",
            # Clients ask for signs of life while a long prompt is computed; without these they would be cut off.
            "--grpc-keepalive-permit-without-calls=1",
            "--grpc-http2-min-recv-ping-interval-without-data=5000",
            "--grpc-http2-max-ping-strikes=0",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            "--disable-auto-complete-config",
            *self._tls_arguments(),
        ]
        for name, listener in (("http", self._listeners.http), ("metrics", self._listeners.metrics)):
            if listener is None:
                arguments.append(f"--allow-{name}=false")
            else:
                host, _, number = listener.rpartition(":")
                arguments += [f"--{name}-address={host}", f"--{name}-port={number}"]
        return arguments

    def _tls_arguments(self) -> list[str]:
        tls = self._runtime.tls
        if tls is None:
            return []
        # The server runs in a folder of its own.
        certificate, key = tls.certificate.absolute(), tls.key.absolute()
        arguments = ["--grpc-use-ssl=true", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
        if tls.client_authorities is not None:
            arguments += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls.client_authorities.absolute()}"]
        return arguments

    def _grpc_address(self) -> tuple[str, str]:
        endpoint = self._runtime.endpoint
        if endpoint.startswith("unix:"):
            return endpoint, str(UNIX_PORT)
        host, _, port = endpoint.rpartition(":")
        return host, port

    def _socket(self) -> Path | None:
        """Return where clients look for the socket; Triton's own name for it has the port behind."""
        endpoint = self._runtime.endpoint
        return Path(endpoint.removeprefix("unix:").removeprefix("//")) if endpoint.startswith("unix:") else None

    def _remove_leftovers(self) -> None:
        for segment in SHARED_MEMORY.glob(f"{self._segments}*"):
            segment.unlink(missing_ok=True)
        socket = self._socket()
        if socket is not None:
            own = socket.with_name(f"{socket.name}:{UNIX_PORT}")
            own.unlink(missing_ok=True)
            socket.unlink(missing_ok=True)
            # A client that follows the link reaches whatever listens at its target.
            socket.symlink_to(own.name)

    async def _keep_watch(self, server: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> None:
        """Raise when the process that runs the model has died, return when the server itself has ended.

        Triton does not notice the former: it goes on calling the model ready, and running requests never end.
        """
        announcing = asyncio.create_task(self._announce())
        try:
            while not self._models:
                await asyncio.sleep(WATCH_INTERVAL_S)
                self._models = living_children(server.pid)
            # The kernel tells of another's children only when asked.
            while living_children(server.pid):  # noqa: ASYNC110 - as said above
                await asyncio.sleep(WATCH_INTERVAL_S)
            if not self._was_ready:
                # A model that cannot be loaded ends its process, and the server says why and ends as well.
                await asyncio.sleep(STOP_GRACE_S)
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
        # A server that dies loses its children, too, some time before its own end is known here.
        await asyncio.wait({ended}, timeout=WATCH_INTERVAL_S)
        if self._output.is_ending or is_ending(server.pid):
            # The model has asked it to end, or could not be loaded: the server's own end says more.
            await asyncio.wait({ended}, timeout=ENDING_S)
        if ended.done():
            return
        server.kill()
        message = "the process that runs the model has died"
        raise EngineError(message)

    async def _announce(self) -> None:
        """Note when the model can generate: only then Triton opens its ports."""
        await self._output.serves.wait()
        self._was_ready = True
        logger.info("listening at %s", self._runtime.endpoint)

    def _failure(self, status: int) -> EngineError:
        if self._output.load_failure is not None:
            return EngineLoadError(self._output.load_failure)
        return EngineError(f"tritonserver has ended with status {status}: {self._output.problems()}")

    async def stop(self) -> None:
        """End the server if it runs, and remove its files."""
        process = self._process
        self._output.is_stopping = True
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(exit_status(process), STOP_GRACE_S)
            except TimeoutError:
                process.kill()
                await exit_status(process)
        self._end_models()
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=STOP_GRACE_S)
        self._remove_leftovers()
        socket = self._socket()
        if socket is not None:
            socket.unlink(missing_ok=True)

    def _end_models(self) -> None:
        """Kill what a server that has ended left behind: a model that was at work may wait for it for ever."""
        for model in self._models:
            # The number may be another's by now; the model is run from this server's own folder.
            kill_if(model, str(self._folder))


def segment_prefix(endpoint: str) -> str:
    """Return how the names of a server's segments in shared memory begin.

    The same address means the same segments, so a start finds what a killed server left.
    """
    return f"gemma4_{hashlib.sha256(endpoint.encode()).hexdigest()[:16]}_"


def _die_with_us() -> None:
    """Ask Linux to kill the server when this process dies; the model's process follows it."""
    _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
