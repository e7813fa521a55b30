"""One engine address: its channel, what is known of the server behind it, and the sequences that run there.

A server that offers the step stream gets one connection for all sequences, any other one an RPC per sequence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import grpc

from engine.errors import EngineError, EngineUnavailableError
from engine.step_messages import EXTENSION, stream_path
from engine.triton.connection import open_channel
from engine.triton.failures import is_unreachable, reason_of, translated
from engine.triton.plain_run import PlainRun, read_end
from engine.triton.protocol import MODEL_NAME, GRPCInferenceServiceStub, service_pb2
from engine.triton.state import STATE_QUERY, decode_state, encode_state_query
from engine.triton.step_stream import StepStream
from engine.wire import decode_limits, encode_stats

if TYPE_CHECKING:
    from engine.core import EngineLimits, EngineRequest, Receiver
    from engine.triton.connection import ConnectionOptions
    from engine.triton.state import EngineState

logger = logging.getLogger(__name__)

UNREACHABLE = "the engine cannot be reached"
CLOSE_TIMEOUT_S = 1.0
"""So long sequences that have had their last response may take to end when the client closes."""
MAX_TOLD = 3
"""So many reasons are logged why a server does not answer, until it does."""
NOTICE_S = 1.0
"""So long a channel may take to notice that a connection has ended on which a call has failed."""
REST_S = 1.0
"""So long new sequences rather go elsewhere after a server has failed one."""


class Endpoint:
    """One server. What it has told of itself is remembered until its connection ends."""

    def __init__(self, address: str, options: ConnectionOptions) -> None:
        """Prepare the channel; nothing is sent yet.

        Raises:
            OSError: a TLS file cannot be read.
        """
        self.address = address
        self._options = options
        self.outstanding = 0
        """Sequences that were started here and not closed."""
        self._channel = open_channel(address, options)
        self._stub: Any = GRPCInferenceServiceStub(self._channel)
        self._limits: EngineLimits | None = None
        self._has_steps: bool | None = None
        self._has_state: bool | None = None
        self._rests_until = 0.0
        self._has_answered = False
        self._told: set[str] = set()
        self._stream_path = stream_path(address)
        self._stream: StepStream | None = None
        self._plain_runs: set[PlainRun] = set()
        self._opening = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_resting(self) -> bool:
        """Whether the server has failed a sequence a moment ago."""
        return asyncio.get_running_loop().time() < self._rests_until

    def rest(self) -> None:
        """Note that the server has failed a sequence."""
        self._rests_until = asyncio.get_running_loop().time() + REST_S

    async def start(self, request: EngineRequest, receiver: Receiver, *, is_patient: bool = True) -> EndpointRun:
        """Start a sequence. A patient caller waits for a server that does not answer yet, which may be starting.

        Raises:
            EngineUnavailableError: the server cannot be reached.
        """
        self.outstanding += 1
        try:
            stream = await self._step_stream(is_patient=is_patient)
            if stream is not None:
                return EndpointRun(self, stream, stream.start(request, receiver))
            run = PlainRun(self._stub, request, receiver)
            self._plain_runs.add(run)
            run.task.add_done_callback(lambda _: self._plain_runs.discard(run))
            return EndpointRun(self, run, 0)
        except BaseException:
            self.outstanding -= 1
            raise

    async def _step_stream(self, *, is_patient: bool) -> StepStream | None:
        """Return the open stream; None when the server offers none."""
        if self._stream is not None and self._stream.is_open:
            return self._stream
        async with self._opening:
            self._drop_broken_stream()
            if self._stream is None:
                await self._connect(is_patient=is_patient)
                if self._stream_path is not None and await self._surely_offers_steps(is_patient=is_patient):
                    self._stream = await StepStream.connect(self._stream_path)
            return self._stream

    def _drop_broken_stream(self) -> None:
        """Drop the stream if it has broken, and with it what is known: another server may answer from now on."""
        if self._stream is not None and not self._stream.is_open:
            self._stream = None
            self._forget()

    async def _connect(self, *, is_patient: bool) -> None:
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self.wait_connected(is_patient=is_patient)
        except TimeoutError as error:
            raise EngineUnavailableError(UNREACHABLE) from error

    async def wait_connected(self, *, is_patient: bool = True) -> None:
        """Return once there is a connection.

        Raises:
            EngineUnavailableError: an attempt to connect has failed, and the caller is not patient.
        """
        ready, failed = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
        while (state := self._channel.get_state(try_to_connect=True)) is not ready:
            if state is failed and not is_patient:
                raise EngineUnavailableError(UNREACHABLE)
            await self._channel.wait_for_state_change(state)

    async def _surely_offers_steps(self, *, is_patient: bool) -> bool:
        """Ask what the server offers, and once more if the channel had not noticed yet that an earlier one has gone."""
        try:
            return await self._offers_steps()
        except EngineUnavailableError as error:
            if not is_unreachable(error):
                raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(NOTICE_S):
                    await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            await self._connect(is_patient=is_patient)
            return await self._offers_steps()

    async def _offers_steps(self) -> bool:
        if self._has_steps is None:
            with translated():
                request = service_pb2.ServerMetadataRequest()
                answer = await self._stub.ServerMetadata(request, timeout=self._options.call_timeout_s)
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
            parameters = await self._parameters()
            limits = (await self._state()).limits if self._has_state else decode_limits(parameters)
            self._limits = limits
            return limits
        return self._limits

    async def adapters(self) -> tuple[str, ...]:
        """Return the adapters that the server has at this moment; unlike limits they are asked for every time.

        Raises:
            EngineUnavailableError: it cannot be reached or has not loaded its model.
        """
        if await self._tells_state():
            return (await self._state()).limits.adapters
        return decode_limits(await self._parameters()).adapters

    async def is_ready(self) -> bool:
        """Tell whether the server can generate."""
        try:
            with translated():
                request = service_pb2.ModelReadyRequest(name=MODEL_NAME)
                answer = await self._stub.ModelReady(request, timeout=self._options.call_timeout_s)
            # Triton calls a model ready that was loaded once, whatever has become of it.
            self._has_answered = True
            self._told.clear()
            return bool(answer.ready) and (not await self._tells_state() or (await self._state()).is_healthy)
        except EngineError as error:
            # An engine that was there has gone; only before that the way to it may be set up wrongly.
            self._tell(error.message if self._has_answered else reason_of(error))
            return False

    def _tell(self, reason: str) -> None:
        """Log once why an engine elsewhere does not answer: nobody here has started it, so nobody else says so."""
        if self._stream_path is None and reason not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(reason)
            logger.warning("the engine at %s does not answer: %s", self.address, reason)

    async def statistics(self) -> dict[str, int]:
        """Return the counters and gauges by name.

        Raises:
            EngineUnavailableError: the server cannot be reached.
        """
        if await self._tells_state():
            return encode_stats((await self._state()).stats)
        with translated():
            request = service_pb2.ModelStatisticsRequest(name=MODEL_NAME)
            answer = await self._stub.ModelStatistics(request, timeout=self._options.call_timeout_s)
        return {key: value.success.count for key, value in answer.model_stats[0].response_stats.items()}

    async def _parameters(self) -> dict[str, str]:
        with translated():
            request = service_pb2.ModelConfigRequest(name=MODEL_NAME)
            answer = await self._stub.ModelConfig(request, timeout=self._options.call_timeout_s)
        parameters = {key: value.string_value for key, value in answer.config.parameters.items()}
        self._has_state = STATE_QUERY in parameters
        self._forget_when_disconnected()
        return parameters

    async def _tells_state(self) -> bool:
        """Tell whether the model has to be asked for what else the protocol's own methods tell."""
        return STATE_QUERY in await self._parameters() if self._has_state is None else self._has_state

    async def _state(self) -> EngineState:
        with translated():
            call = self._stub.ModelStreamInfer(timeout=self._options.call_timeout_s)
            try:
                await call.write(encode_state_query())
                await call.done_writing()
                message = await call.read()
                await read_end(call)
            finally:
                call.cancel()
        if message is grpc.aio.EOF:
            raise EngineUnavailableError(UNREACHABLE)
        return decode_state(message)

    async def close(self) -> None:
        """Cancel everything and close the channel."""
        if self._stream is not None:
            self._stream.close()
        for run in tuple(self._plain_runs):
            run.cancel(0)
        if self._plain_runs:
            await asyncio.wait([run.task for run in self._plain_runs], timeout=CLOSE_TIMEOUT_S)
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
        self._forget()

    def _forget(self) -> None:
        self._limits = self._has_steps = self._has_state = None


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
