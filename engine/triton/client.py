"""``EngineClient``: the API's only way to an engine, over KServe v2 gRPC.

One RPC per sequence; closing the iterator cancels it. Several endpoints share the load by outstanding requests. Errors
of gRPC become ``engine.errors`` in one place, ``_translated``.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from engine.core import EngineStats
from engine.errors import EngineError, EngineUnavailableError
from engine.triton.protocol import MAX_MESSAGE_BYTES, MODEL_NAME, GRPCInferenceServiceStub, service_pb2
from engine.wire import decode_delta, decode_error, decode_limits, encode_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from engine.core import EngineDelta, EngineLimits, EngineRequest

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 5.0
"""Deadline of the short calls (ready, limits, stats). Generation has none: its consumer decides."""

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The launcher restarts a crashed engine within a second; gRPC's own back-off would wait for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)
UNAVAILABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class _Endpoint:
    """One engine address: its channel, its stub, and how many sequences it has."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.stub: Any = GRPCInferenceServiceStub(self.channel)
        self.outstanding = 0

    async def connect(self) -> None:
        if self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        try:
            await asyncio.wait_for(self.channel.channel_ready(), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            message = "the engine cannot be reached"
            raise EngineUnavailableError(message) from error


@contextmanager
def _translated() -> Iterator[None]:
    """Turn gRPC's errors into the engine layer's."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        if error.code() in UNAVAILABLE:
            message = "the engine was lost or cannot be reached"
            raise EngineUnavailableError(message) from error
        raise decode_error(details) from error


class EngineClient:
    """Talks to one or more engines that serve the same model."""

    def __init__(self, endpoints: Sequence[str]) -> None:
        """Prepare channels; nothing is sent yet. Must be called in the event loop that will use it.

        Args:
            endpoints: ``unix:/path`` or ``host:port`` each, at least one.
        """
        if not endpoints:
            message = "no engine endpoint is given"
            raise ValueError(message)
        self._endpoints = [_Endpoint(address) for address in endpoints]
        self._calls: dict[str, set[Any]] = {}

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield deltas until one carries a finish reason; closing the iterator aborts the sequence.

        Raises:
            EngineError: the class that the engine raised, or EngineUnavailableError when it is lost.
        """
        endpoint = min(self._endpoints, key=lambda e: e.outstanding)
        endpoint.outstanding += 1
        call: Any = None
        try:
            await endpoint.connect()
            with _translated():
                call = endpoint.stub.ModelStreamInfer()
                self._calls.setdefault(request.request_id, set()).add(call)
                await call.write(encode_request(request))
                await call.done_writing()
                while (message := await call.read()) is not grpc.aio.EOF:
                    delta = decode_delta(message)
                    yield delta
                    if delta.finish_reason is not None:
                        return
            failure = "the engine ended a sequence without a finish reason"
            raise EngineUnavailableError(failure)
        finally:
            endpoint.outstanding -= 1
            if call is not None:
                call.cancel()
                self._forget(request.request_id, call)

    def _forget(self, request_id: str, call: grpc.aio.StreamStreamCall) -> None:
        calls = self._calls.get(request_id, set())
        calls.discard(call)
        if not calls:
            self._calls.pop(request_id, None)

    async def abort(self, request_id: str) -> None:
        """Cancel this client's sequences of that id; unknown ids are ignored."""
        for call in tuple(self._calls.get(request_id, ())):
            call.cancel()

    async def ready(self) -> bool:
        """Tell whether at least one engine has loaded its model and can generate."""
        answers = await asyncio.gather(*(self._is_ready(endpoint) for endpoint in self._endpoints))
        return any(answers)

    @staticmethod
    async def _is_ready(endpoint: _Endpoint) -> bool:
        try:
            with _translated():
                request = service_pb2.ModelReadyRequest(name=MODEL_NAME)
                answer = await endpoint.stub.ModelReady(request, timeout=CALL_TIMEOUT_S)
        except EngineError:
            return False
        return bool(answer.ready)

    async def limits(self) -> EngineLimits:
        """Return the limits of the first engine that answers.

        Raises:
            EngineUnavailableError: none has loaded its model.
        """
        for endpoint in self._endpoints:
            try:
                with _translated():
                    request = service_pb2.ModelConfigRequest(name=MODEL_NAME)
                    answer = await endpoint.stub.ModelConfig(request, timeout=CALL_TIMEOUT_S)
            except EngineUnavailableError:
                continue
            return decode_limits({key: value.string_value for key, value in answer.config.parameters.items()})
        message = "no engine has loaded its model yet"
        raise EngineUnavailableError(message)

    async def stats(self) -> EngineStats:
        """Return the sums over all engines that answer."""
        totals = dict.fromkeys(EngineStats.__dataclass_fields__, 0)
        for endpoint in self._endpoints:
            try:
                with _translated():
                    request = service_pb2.ModelStatisticsRequest(name=MODEL_NAME)
                    answer = await endpoint.stub.ModelStatistics(request, timeout=CALL_TIMEOUT_S)
            except EngineUnavailableError:
                continue
            for key, value in answer.model_stats[0].response_stats.items():
                if key in totals:
                    totals[key] += value.success.count
        return EngineStats(**totals)

    async def close(self) -> None:
        """Cancel everything and close the channels."""
        await asyncio.gather(*(endpoint.channel.close() for endpoint in self._endpoints))
