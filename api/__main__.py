"""``python -m api --runtime FILE``: one API process, from settings to a clean exit.

The launcher starts it; it can be started by hand from the same file. Exit codes: 0 after a stop on request,
``EXIT_CONFIG`` for settings or files that cannot be used, ``EXIT_PORT_TAKEN`` when something else listens.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop
from fastapi import FastAPI
from pydantic import ValidationError

from api.gemma4.errors import VocabularyError
from api.http.access_options import AccessOptions
from api.http.app import create_app
from api.http.metadata_facts import ModelFacts, release
from api.http.options import ApiOptions
from api.http.server import ApiServer
from api.media.decoder import DecoderLimits
from api.media.fetch import FetchLimits
from api.media.fetch_policy import FetchPolicy
from api.telemetry.trace_options import TraceOptions
from config.environment import load_settings
from config.errors import ConfigError
from config.logs import configure_logging
from config.runtime import ApiRuntime
from config.settings import Settings

EXIT_CONFIG: Final = 64
EXIT_PORT_TAKEN: Final = 98
_BACKLOG: Final = 2048
_MAX_DECODERS: Final = 4
"""Decoder processes unless the user says how many; more would take memory for little."""

_log = logging.getLogger("api")


class StartError(Exception):
    """The process cannot start; ``message`` is one line for the person who started it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until stopped and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API of one model.")
    parser.add_argument("--runtime", type=Path, required=True, metavar="FILE", help="JSON file from the launcher")
    parser.add_argument("--worker", type=int, metavar="N", help="number of this process, where there are several")
    told = parser.parse_args(arguments)
    runtime_path: Path = told.runtime
    try:
        settings = load_settings().settings
        configure_logging(settings.log, "api" if told.worker is None else f"api-{told.worker}")
        runtime = ApiRuntime.model_validate_json(runtime_path.read_bytes())
        options = _options(settings, runtime)
        app = create_app(runtime, options)
        listener = _listener(runtime, options)
    except StartError as error:
        return _fail(error.message, error.exit_code)
    except ConfigError as error:
        return _fail("; ".join(error.problems), EXIT_CONFIG)
    except (OSError, ValidationError, VocabularyError) as error:
        return _fail(" ".join(str(error).split()), EXIT_CONFIG)
    with listener:
        uvloop.run(_serve(app, listener, options))
    return 0


def _fail(message: str, exit_code: int) -> int:
    sys.stderr.write(f"gemma4-nim api: {message}\n")
    return exit_code


def _options(settings: Settings, runtime: ApiRuntime) -> ApiOptions:
    """Pick what this process needs from the user's settings.

    Raises:
        ConfigError: when a certificate or the file of keys cannot be used.
        StartError: when the folder or the hosts of pictures cannot be used.
    """
    media, fetch, workers = settings.media, settings.fetch, settings.processes.workers
    if media.allowed_local_path is not None and not media.allowed_local_path.is_dir():
        raise StartError(f"NIM_ALLOWED_LOCAL_MEDIA_PATH is no folder: {media.allowed_local_path}", EXIT_CONFIG)
    try:
        policy = FetchPolicy(fetch.allowed_domains, fetch.allowed_ports) if fetch.allow_url_input else None
    except ValueError as error:
        raise StartError(f"NIM_ALLOWED_MEDIA_DOMAINS: {error}", EXIT_CONFIG) from error
    return ApiOptions(
        host=settings.server.host,
        port=settings.server.port,
        max_images=settings.media.max_images_per_prompt,
        max_image_bytes=settings.media.max_image_bytes,
        image_tokens=settings.media.image_tokens,
        image_cache_bytes=media.image_cache_bytes // workers,
        decoders=DecoderLimits(
            processes=_share(media.decoders or min(len(os.sched_getaffinity(0)), _MAX_DECODERS), workers),
            memory_bytes=media.decoder_memory_bytes,
            timeout_s=media.decoder_timeout_s,
            max_image_bytes=media.max_image_bytes,
        ),
        local_media_path=media.allowed_local_path,
        fetch_policy=policy,
        fetch_limits=FetchLimits(
            max_bytes=media.max_image_bytes,
            connect_timeout_s=fetch.connect_timeout_s,
            timeout_s=fetch.timeout_s,
            max_parallel=_share(fetch.max_parallel, workers),
            max_waiting=4 * _share(fetch.max_parallel, workers),
        ),
        lenient_requests=settings.server.lenient_requests,
        diagnostics=settings.server.enable_diagnostics,
        max_body_bytes=settings.server.max_request_bytes,
        body_timeout_s=settings.limits.body_timeout_s,
        shutdown_grace_s=settings.launch.shutdown_grace_s,
        access=AccessOptions.of(settings, runtime.api_keys),
        model=_model_facts(settings, runtime),
        traces=_trace_options(settings),
    )


def _share(whole: int, workers: int) -> int:
    """Return what one of several processes may have of something, so that all together keep the limit; at least one."""
    return max(1, whole // workers)


def _model_facts(settings: Settings, runtime: ApiRuntime) -> ModelFacts:
    """Return what ``/v1/metadata`` tells of the model."""
    given = () if settings.model.uri is None else (settings.model.uri,)
    return ModelFacts(
        profile_id=runtime.profile_id,
        urls=runtime.model_urls or given,
        repository_override=settings.cache.repository_override or "",
        manifest_path=settings.profile.manifest_path,
    )


def _trace_options(settings: Settings) -> TraceOptions | None:
    telemetry = settings.telemetry
    if not telemetry.enable_otel or telemetry.traces_exporter == "none":
        return None
    return TraceOptions(telemetry.traces_exporter, telemetry.otlp_endpoint, telemetry.service_name, release())


def _listener(runtime: ApiRuntime, options: ApiOptions) -> socket.socket:
    """Take over the socket that the launcher has opened; started by hand, open one."""
    if runtime.listen_fd is not None:
        return socket.socket(fileno=runtime.listen_fd)
    return _listen(options.host, options.port)


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything else starts, so that a taken port is one clear line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} is taken by another process; set NIM_SERVER_PORT to a free one", EXIT_PORT_TAKEN
            ) from error
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}", EXIT_CONFIG) from error
    listener.listen(_BACKLOG)
    return listener


async def _serve(app: FastAPI, listener: socket.socket, options: ApiOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain and stop."""
    # What has been loaded stays. To look through it again takes the collector 40 ms, in which nobody is served.
    gc.collect()
    gc.freeze()
    server = ApiServer(app, options.access)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def stop_on_signal() -> None:
        await stop.wait()
        left = await app.state.server.drain(options.shutdown_grace_s) if server.started else 0
        if left:
            _log.warning("stopping with %d unfinished answers after %.0f s", left, options.shutdown_grace_s)
        server.should_exit = True

    stopper = asyncio.ensure_future(stop_on_signal())
    try:
        await server.serve(sockets=[listener])
    finally:
        stopper.cancel()


if __name__ == "__main__":
    sys.exit(main())
