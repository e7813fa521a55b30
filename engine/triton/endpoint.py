"""One engine address: its channel, what is known of the server behind it, and the sequences that run there.

A server that offers the step stream gets one connection for all sequences, any other one an RPC per sequence.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from engine.errors import EngineError, EngineUnavailableError
from engine.step_messages import EXTENSION, stream_path
from engine.triton.failures import translated
from engine.triton.protocol import MAX_MESSAGE_BYTES, MODEL_NAME, GRPCInferenceServiceStub, service_pb2
from engine.triton.step_stream import StepStream
from engine.wire import decode_delta, decode_limits, encode_request

if TYPE_CHECKING:
    from engine.core import EngineLimits, EngineRequest, Receiver

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


class Endpoint:
    """One server. What it has told of itself is remembered until its connection ends."""

    def __init__(self, address: str) -> None:
        """Prepare the channel; nothing is sent yet."""
        self.outstanding = 0
        """Sequences that were started here and not closed."""
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub: Any = GRPCInferenceServiceStub(self._channel)
        self._limits: EngineLimits | None = None
        self._has_steps: bool | None = None
        self._stream_path = stream_path(address)
        self._stream: StepStream | None = None
        self._opening = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def start(self, request: EngineRequest, receiver: Receiver) -> EndpointRun:
        """Start a sequence.

        Raises:
            EngineUnavailableError: the server cannot be reached.
        """
        self.outstanding += 1
        try:
            stream = await self._step_stream()
            if stream is not None:
                return EndpointRun(self, stream, stream.start(request, receiver))
            return EndpointRun(self, PlainRun(self._stub, request, receiver), 0)
        except BaseException:
            self.outstanding -= 1
            raise

    async def _step_stream(self) -> StepStream | None:
        """Return the open stream; None when the server offers none."""
        if self._stream is not None and self._stream.is_open:
            return self._stream
        async with self._opening:
            self._drop_broken_stream()
            if self._stream is None:
                await self._connect()
                if self._stream_path is not None and await self._offers_steps():
                    self._stream = await StepStream.connect(self._stream_path)
            return self._stream

    def _drop_broken_stream(self) -> None:
        """Drop the stream if it has broken, and with it what is known: another server may answer from now on."""
        if self._stream is not None and not self._stream.is_open:
            self._stream = self._limits = self._has_steps = None

    async def _connect(self) -> None:
        if self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        try:
            await asyncio.wait_for(self._channel.channel_ready(), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            message = "the engine cannot be reached"
            raise EngineUnavailableError(message) from error

    async def _offers_steps(self) -> bool:
        if self._has_steps is None:
            with translated():
                request = service_pb2.ServerMetadataRequest()
                answer = await self._stub.ServerMetadata(request, timeout=CALL_TIMEOUT_S)
            self._has_steps = EXTENSION in answer.extensions
            self._forget_when_disconnected()
        return self._has_steps

    async def limits(self) -> EngineLimits:
        """Return the server's limits, asked for once per connection.

        Raises:
            EngineUnavailableError: it cannot be reached or has not loaded its model.
        """
        self._drop_broken_stream()
        if self._limits is None:
            with translated():
                request = service_pb2.ModelConfigRequest(name=MODEL_NAME)
                answer = await self._stub.ModelConfig(request, timeout=CALL_TIMEOUT_S)
            parameters = answer.config.parameters
            self._limits = limits = decode_limits({key: value.string_value for key, value in parameters.items()})
            self._forget_when_disconnected()
            return limits
        return self._limits

    async def is_ready(self) -> bool:
        """Tell whether the server can generate."""
        try:
            with translated():
                request = service_pb2.ModelReadyRequest(name=MODEL_NAME)
                answer = await self._stub.ModelReady(request, timeout=CALL_TIMEOUT_S)
        except EngineError:
            return False
        return bool(answer.ready)

    async def statistics(self) -> dict[str, int]:
        """Return the counters and gauges by name.

        Raises:
            EngineUnavailableError: the server cannot be reached.
        """
        with translated():
            request = service_pb2.ModelStatisticsRequest(name=MODEL_NAME)
            answer = await self._stub.ModelStatistics(request, timeout=CALL_TIMEOUT_S)
        return {key: value.success.count for key, value in answer.model_stats[0].response_stats.items()}

    async def close(self) -> None:
        """Cancel everything and close the channel."""
        if self._stream is not None:
            self._stream.close()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._channel.close()

    def _forget_when_disconnected(self) -> None:
        """Watch the connection: what answers at this address afterwards may be another server."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._wait_until_disconnected())

    async def _wait_until_disconnected(self) -> None:
        ready = grpc.ChannelConnectivity.READY
        if self._channel.get_state() is ready:
            await self._channel.wait_for_state_change(ready)
        self._limits = self._has_steps = None


class EndpointRun:
    """A sequence that runs at an endpoint."""

    def __init__(self, endpoint: Endpoint, carrier: StepStream | PlainRun, number: int) -> None:
        """Take over a sequence: its number on its stream, or an RPC of its own."""
        self._endpoint: Endpoint | None = endpoint
        self._carrier = carrier
        self._number = number

    def close(self) -> None:
        """End the sequence if it still runs; harmless when repeated."""
        if self._endpoint is not None:
            self._endpoint.outstanding -= 1
            self._endpoint = None
            self._carrier.cancel(self._number)


class PlainRun:
    """One sequence as an RPC of its own, as every server of the protocol understands it."""

    def __init__(self, stub: Any, request: EngineRequest, receiver: Receiver) -> None:
        """Send the request and read what comes, in a task."""
        self._task = asyncio.create_task(self._run(stub, request, receiver))

    def cancel(self, _number: int) -> None:
        """End it if it still runs."""
        self._task.cancel()

    @staticmethod
    async def _run(stub: Any, request: EngineRequest, receiver: Receiver) -> None:
        call = stub.ModelStreamInfer()
        try:
            with translated():
                await call.write(encode_request(request))
                await call.done_writing()
                while (message := await call.read()) is not grpc.aio.EOF:
                    delta = decode_delta(message)
                    receiver.delta(delta)
                    if delta.finish_reason is not None:
                        return
            failure = "the engine ended a sequence without a finish reason"
            receiver.failed(EngineUnavailableError(failure))
        except EngineError as error:
            receiver.failed(error)
        finally:
            call.cancel()
