"""``python -m engine --runtime FILE``: the embedded engine process.

It serves at once, loads the model in a thread, and exits with status 1 and one line on standard error when that fails.
It dies with the process that started it, and stops on SIGTERM or SIGINT. Of several machines that share one engine only
the first one's process serves: ``engine.nodes``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from config.environment import load_settings
from config.errors import ConfigError
from config.logs import configure_logging
from config.runtime import EngineRuntime
from engine.cores import load_core
from engine.errors import EngineError, EngineLoadError
from engine.nodes import add_options, beside_workers, is_worker, placed, work
from engine.server import InferenceService, create_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.core import EngineCore

logger = logging.getLogger("engine")

HEALTH_INTERVAL_S = 1.0
STOP_GRACE_S = 0.5
"""The launcher drains the API before it stops the engine, so an RPC that is still open has no reader to wait for."""
PR_SET_PDEATHSIG = 1
EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="Serve one engine over KServe v2 gRPC.")
    parser.add_argument("--runtime", type=Path, required=True, help="JSON file with the engine's settings")
    add_options(parser)
    options = parser.parse_args(arguments)
    try:
        configure_logging(load_settings().settings.log, "engine")
        runtime = placed(EngineRuntime.model_validate_json(options.runtime.read_bytes()), options)
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"engine: {options.runtime} cannot be used: {error}\n")
        return EXIT_USAGE
    except ConfigError as error:
        sys.stderr.write(f"engine: {'; '.join(error.problems)}\n")
        return EXIT_USAGE
    die_with_parent()
    try:
        if is_worker(runtime):
            work(runtime)
        else:
            asyncio.run(serve(runtime))
    except EngineError as error:
        sys.stderr.write(f"engine: {error.message}\n")
        return EXIT_FAILED
    return 0


def die_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent dies, so that a killed launcher leaves no engine behind."""
    parent = os.getppid()
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) == 0:
        if os.getppid() != parent:
            # It died before the request took effect.
            os.kill(os.getpid(), signal.SIGTERM)


async def serve(runtime: EngineRuntime) -> None:
    """Serve until a signal arrives.

    Raises:
        EngineError: the address cannot be bound, the model cannot be loaded, or the core stopped working.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _remove_stale_socket(runtime.endpoint)
    service = InferenceService()
    try:
        server = create_server(service, runtime.endpoint, runtime.tls)
        await server.start()
    except RuntimeError as error:
        message = f"cannot listen at {runtime.endpoint}: {error}"
        raise EngineLoadError(message) from error
    logger.info("listening at %s", runtime.endpoint)
    stopping = asyncio.create_task(stop.wait())
    running = asyncio.create_task(beside_workers(_run_core(service, runtime), runtime.cluster))
    try:
        await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        running.cancel()
        stopping.cancel()
        await server.stop(STOP_GRACE_S)
        if service.core is not None:
            await service.core.close()
        _remove_stale_socket(runtime.endpoint)


async def _run_core(service: InferenceService, runtime: EngineRuntime) -> None:
    """Load the core, then watch it; returns only by raising."""
    core = await _load_in_thread(runtime)
    service.core = core
    limits = core.limits()
    logger.info("ready: %s, %d sequences of %d tokens", limits.model, limits.max_sequences, limits.context_tokens)
    while await core.health():  # noqa: ASYNC110 - a core tells its health only when asked
        await asyncio.sleep(HEALTH_INTERVAL_S)
    message = "the core has stopped working"
    raise EngineError(message)


def _load_in_thread(runtime: EngineRuntime) -> asyncio.Future[EngineCore]:
    """Load the core in a daemon thread: reading a large model takes minutes, and a stop must not wait for it."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[EngineCore] = loop.create_future()

    def set_result(core: EngineCore) -> None:
        if not loaded.done():
            loaded.set_result(core)

    def set_error(error: BaseException) -> None:
        if not loaded.done():
            loaded.set_exception(error)

    def load() -> None:
        try:
            core = load_core(runtime)
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: it is raised again by whoever waits
            _post(set_error, error)
        else:
            _post(set_result, core)

    def _post(callback: Callable[..., None], value: object) -> None:
        # The loop is closed when a stop came first.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback, value)

    threading.Thread(target=load, name="engine-load", daemon=True).start()
    return loaded


def _remove_stale_socket(endpoint: str) -> None:
    """Delete the socket file that a killed process left behind; gRPC would refuse the address otherwise."""
    if endpoint.startswith("unix:"):
        path = Path(endpoint.removeprefix("unix:").removeprefix("//"))
        if path.is_socket():
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
