# ruff: noqa: N802 - the names of the methods are the protocol's
"""The embedded engine server: one ``EngineCore`` behind KServe v2 gRPC, the same service that Triton offers.

It serves at once and turns ready when the core has loaded. An RPC that is cancelled, or whose client vanishes, ends its
sequence, because gRPC then cancels the handler and that closes the core's iterator.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc

from engine.errors import EngineError, EngineUnavailableError
from engine.listener_tls import server_credentials
from engine.step_messages import EXTENSION, stream_path
from engine.step_server import StepServer
from engine.triton.protocol import (
    MAX_MESSAGE_BYTES,
    MODEL_NAME,
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
    model_config_pb2,
    service_pb2,
)
from engine.wire import INPUTS, OUTPUTS, decode_request, encode_delta, encode_error, encode_limits, encode_stats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from config.runtime import ListenerTls
    from engine.core import EngineCore

logger = logging.getLogger(__name__)

SERVER_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # Clients send keep-alive pings while a long prompt is computed; without these the server would cut them off.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class InferenceService(GRPCInferenceServiceServicer):  # type: ignore[misc] # generated without types
    """The service's methods; their names and messages are the protocol's."""

    def __init__(self) -> None:
        self.core: EngineCore | None = None
        """Set once the core has loaded."""
        self.has_steps = False
        """Whether a step stream can be had beside this service."""

    async def ServerLive(
        self, _request: service_pb2.ServerLiveRequest, _context: grpc.aio.ServicerContext
    ) -> service_pb2.ServerLiveResponse:
        """Tell that the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(
        self, _request: service_pb2.ServerReadyRequest, _context: grpc.aio.ServicerContext
    ) -> service_pb2.ServerReadyResponse:
        """Tell whether the core can generate."""
        return service_pb2.ServerReadyResponse(ready=await self._is_ready())

    async def ModelReady(
        self, request: service_pb2.ModelReadyRequest, _context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelReadyResponse:
        """Tell whether the named model can generate."""
        return service_pb2.ModelReadyResponse(ready=request.name == MODEL_NAME and await self._is_ready())

    async def ServerMetadata(
        self, _request: service_pb2.ServerMetadataRequest, _context: grpc.aio.ServicerContext
    ) -> service_pb2.ServerMetadataResponse:
        """Name the server."""
        extensions = ["statistics", EXTENSION] if self.has_steps else ["statistics"]
        return service_pb2.ServerMetadataResponse(name="gemma4-nim engine", version="1", extensions=extensions)

    async def ModelMetadata(
        self, request: service_pb2.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelMetadataResponse:
        """List the model's tensors."""
        await self._check_model(request.name, context)
        answer = service_pb2.ModelMetadataResponse(name=MODEL_NAME, versions=["1"], platform="gemma4-nim")
        for table, target in ((INPUTS, answer.inputs), (OUTPUTS, answer.outputs)):
            for name, (datatype, shape) in table.items():
                target.add(name=name, datatype=datatype, shape=shape)
        return answer

    async def ModelConfig(
        self, request: service_pb2.ModelConfigRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelConfigResponse:
        """Return the engine's limits as the model's parameters."""
        core = await self._loaded(request.name, context)
        config = model_config_pb2.ModelConfig(name=MODEL_NAME, backend="gemma4-nim", max_batch_size=0)
        config.model_transaction_policy.decoupled = True
        for key, value in encode_limits(core.limits()).items():
            config.parameters[key].string_value = value
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelStatistics(
        self, request: service_pb2.ModelStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> service_pb2.ModelStatisticsResponse:
        """Return the engine's counters and gauges, each as the ``success.count`` of a response statistic."""
        core = await self._loaded(request.name or MODEL_NAME, context)
        answer = service_pb2.ModelStatisticsResponse()
        model = answer.model_stats.add(name=MODEL_NAME, version="1")
        for key, value in encode_stats(core.stats()).items():
            model.response_stats[key].success.count = value
        model.inference_count = core.stats().requests_total
        return answer

    async def ModelStreamInfer(
        self, requests: AsyncIterator[service_pb2.ModelInferRequest], _context: grpc.aio.ServicerContext
    ) -> AsyncIterator[service_pb2.ModelStreamInferResponse]:
        """Run the sequences of a stream one after the other; each response carries all ids that are ready."""
        async for message in requests:
            try:
                core = self.core_of(message.model_name)
                async with aclosing(core.generate(decode_request(message))) as deltas:  # type: ignore[type-var]
                    async for delta in deltas:
                        yield encode_delta(message.id, delta)
            except EngineError as error:
                yield service_pb2.ModelStreamInferResponse(error_message=encode_error(error))

    def core_of(self, model_name: str) -> EngineCore:
        """Return the core.

        Raises:
            EngineUnavailableError: it is still loading, or the model has another name.
        """
        if self.core is None or model_name != MODEL_NAME:
            problem = "the engine is loading its model" if self.core is None else "unknown model"
            raise EngineUnavailableError(problem)
        return self.core

    async def _is_ready(self) -> bool:
        return self.core is not None and await self.core.health()

    async def _check_model(self, name: str, context: grpc.aio.ServicerContext) -> None:
        if name != MODEL_NAME:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"the model is called {MODEL_NAME}")

    async def _loaded(self, name: str, context: grpc.aio.ServicerContext) -> EngineCore:
        await self._check_model(name, context)
        if self.core is None:
            problem = "the engine is loading its model"
            await context.abort(grpc.StatusCode.UNAVAILABLE, problem)
            raise EngineUnavailableError(problem)  # never reached: abort() raises; this tells the type checker
        return self.core


class EngineServer:
    """The gRPC service and, where its address is a unix socket, the step streams beside it."""

    def __init__(self, service: InferenceService, endpoint: str, tls: ListenerTls | None) -> None:
        """Bind the service to ``endpoint``.

        Raises:
            RuntimeError: the address is taken or impossible.
            EngineLoadError: a TLS file cannot be used.
        """
        self._service = service
        self._grpc = grpc.aio.server(options=SERVER_OPTIONS)
        add_GRPCInferenceServiceServicer_to_server(service, self._grpc)
        if tls is None:
            self._grpc.add_insecure_port(endpoint)
        else:
            self._grpc.add_secure_port(endpoint, server_credentials(tls))
        path = stream_path(endpoint)
        self._steps = None if path is None else StepServer(service.core_of, path)

    async def start(self) -> None:
        """Serve."""
        if self._steps is not None:
            try:
                await self._steps.start()
            except OSError as error:
                # The path is a little longer than the service's own. Every client can do without.
                logger.warning("no step streams: %s", error)
            else:
                self._service.has_steps = True
        await self._grpc.start()

    async def stop(self, grace_s: float) -> None:
        """End step streams at once, and RPCs after ``grace_s`` seconds."""
        if self._steps is not None:
            await self._steps.stop()
        await self._grpc.stop(grace_s)

    async def wait_for_termination(self) -> None:
        """Return once the server has been stopped."""
        await self._grpc.wait_for_termination()


def create_server(service: InferenceService, endpoint: str, tls: ListenerTls | None = None) -> EngineServer:
    """Return a server that is bound to ``endpoint`` and not yet started.

    Raises:
        RuntimeError: the address is taken or impossible.
        EngineLoadError: a TLS file cannot be used.
    """
    return EngineServer(service, endpoint, tls)
