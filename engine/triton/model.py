"""``TritonPythonModel``: what Triton's Python backend runs. It loads the core that the model's configuration names.

Triton calls ``initialize`` once, ``execute`` for every request and ``finalize`` at the end, all in one thread.
"""

from __future__ import annotations

import json
import locale
import logging
import os
import select
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import triton_python_backend_utils as backend  # type: ignore[import-not-found] # exists in the backend's process only
from pydantic import ValidationError

from config.environment import load_settings
from config.errors import ConfigError
from config.logs import configure_logging
from config.runtime import EngineRuntime
from engine.cores import load_core
from engine.errors import EngineError, EngineUnavailableError, InvalidRequestError, QueueFullError
from engine.triton.backend_tensors import BackendReader, BackendWriter
from engine.triton.host import CoreHost
from engine.triton.metrics import Metrics
from engine.triton.repository import RUNTIME_PARAMETER
from engine.triton.sender import Sender
from engine.triton.state import STATE_ANSWER, STATE_QUERY, encode_state
from engine.wire import encode_error, read_request, write_delta

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from engine.core import EngineDelta
    from engine.triton.state import EngineState

logger = logging.getLogger("engine.triton.model")

FINAL = backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """The model ``gemma4``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the core, which takes as long as it takes; Triton calls the model ready afterwards.

        Raises:
            TritonModelException: it cannot be loaded; Triton logs the message and ends.
        """
        _follow_server()
        _read_text_as_utf8()
        parameters = json.loads(args["model_config"])["parameters"]
        try:
            configure_logging(load_settings().settings.log, "engine")
            runtime = EngineRuntime.model_validate_json(parameters[RUNTIME_PARAMETER]["string_value"])
            core = load_core(runtime)
        except (ValidationError, ConfigError, EngineError) as error:
            raise backend.TritonModelException(str(error)) from error
        metrics = Metrics(backend)
        self._has_ended = False

        def observe(state: EngineState, sender: Sender) -> None:
            metrics.update(state.stats, sender.responses)
            if not state.is_healthy and not self._has_ended:
                self._has_ended = True
                logger.error("the core has stopped working")
                _end_server()

        self._host = CoreHost(core, Sender(), observe)
        limits = core.limits()
        logger.info("ready: %s, %d sequences of %d tokens", limits.model, limits.max_sequences, limits.context_tokens)

    def execute(self, requests: Sequence[Any]) -> None:
        """Start what was asked for; answers go their own way, later."""
        for request in requests:
            reply = BackendReply(request.get_response_sender())
            try:
                self._start(request, reply)
            except EngineError as error:
                self._host.refuse(error, reply)
            except Exception:
                # A request without an answer would hold its client, and Triton's shutdown, for ever.
                logger.exception("a request could not be started")
                self._host.refuse(EngineError("the engine failed"), reply)

    def finalize(self) -> None:
        """End everything and free the core."""
        self._host.close()

    def _start(self, request: Any, reply: BackendReply) -> None:
        reader = BackendReader(request.inputs())
        if STATE_QUERY in reader.names():
            self._host.tell_state(reply.state)
        else:
            self._host.submit(read_request(request.request_id(), reader), reply)


class BackendReply:
    """The response sender of one request."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, delta: EngineDelta) -> None:
        """Send a delta."""
        writer = BackendWriter(backend)
        write_delta(writer, delta)
        flags = FINAL if delta.finish_reason is not None else 0
        self._sender.send(backend.InferenceResponse(writer.tensors), flags=flags)

    def state(self, state: EngineState) -> None:
        """Send the engine's state, which is all there is to this request."""
        writer = BackendWriter(backend)
        writer.texts(STATE_ANSWER, (encode_state(state),))
        self._sender.send(backend.InferenceResponse(writer.tensors), flags=FINAL)

    def fail(self, error: EngineError) -> None:
        """End the request with an error."""
        self._end(encode_error(error), _status(error))

    def cancelled(self) -> None:
        """End a request that its client has cancelled."""
        self._end("cancelled", backend.TritonError.CANCELLED)

    def is_cancelled(self) -> bool:
        """Tell whether the client has left."""
        return bool(self._sender.is_cancelled())

    def _end(self, text: str, status: Any) -> None:
        response = backend.InferenceResponse([], backend.TritonError(text, status))
        self._sender.send(response, flags=FINAL)


def _status(error: EngineError) -> Any:
    if isinstance(error, InvalidRequestError):
        return backend.TritonError.INVALID_ARG
    if isinstance(error, QueueFullError | EngineUnavailableError):
        return backend.TritonError.UNAVAILABLE
    return backend.TritonError.INTERNAL


def _follow_server() -> None:
    """End this process as soon as the server is gone, also if it was killed; it would hold the model's memory."""
    server = os.pidfd_open(os.getppid())

    def watch() -> None:
        poll = select.poll()
        poll.register(server, select.POLLIN)
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, name="server-watch", daemon=True).start()


def _read_text_as_utf8() -> None:
    """Let files that a library opens without naming an encoding be UTF-8, as they are in any other Python of today.

    The backend starts its interpreter without looking at the locale, which leaves ASCII.
    """
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def _end_server() -> None:
    """End the server: it would go on calling a model ready that cannot generate. Whoever started it starts it again."""
    server = os.getppid()
    if Path(f"/proc/{server}/comm").read_text(encoding="utf-8").strip() == "tritonserver":
        os.kill(server, signal.SIGTERM)
    else:
        os._exit(1)
