"""What an engine tells of itself where the protocol's own methods cannot: behind Triton.

Triton answers ``ModelConfig`` from a file and ``ModelStatistics`` from its own counters. A model that says so in its
configuration takes a request with the tensor ``state_query`` and answers with one response, a JSON text.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from engine.core import EngineLimits, EngineStats
from engine.errors import EngineError
from engine.tensors import TensorReader, input_writer
from engine.triton.protocol import MODEL_NAME, service_pb2
from engine.wire import decode_error

STATE_QUERY = "state_query"
"""The tensor that asks, and the parameter of a model's configuration which says that it may be asked."""
STATE_ANSWER = "engine_state"
INPUT = {STATE_QUERY: ("BOOL", (1,))}
OUTPUT = {STATE_ANSWER: ("BYTES", (1,))}


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine's health, limits and counters at one moment."""

    is_healthy: bool
    limits: EngineLimits
    stats: EngineStats


def encode_state_query() -> service_pb2.ModelInferRequest:
    """Return the request that asks."""
    message = service_pb2.ModelInferRequest(model_name=MODEL_NAME)
    input_writer(message).numbers(STATE_QUERY, "BOOL", (1,))
    return message


def encode_state(state: EngineState) -> bytes:
    """Return a state as the text that the answer holds."""
    return json.dumps(dataclasses.asdict(state)).encode()


def decode_state(message: service_pb2.ModelStreamInferResponse) -> EngineState:
    """Return the state that an answer holds.

    Raises:
        EngineError: the answer is an error, or malformed.
    """
    if message.error_message:
        raise decode_error(message.error_message)
    response = message.infer_response
    text = TensorReader(response.outputs, response.raw_output_contents).text(STATE_ANSWER)
    try:
        fields = json.loads(text or b"")
        limits, stats = EngineLimits.of(fields["limits"]), EngineStats(**fields["stats"])
        return EngineState(bool(fields["is_healthy"]), limits, stats)
    except (ValueError, KeyError, TypeError) as error:
        problem = f"the engine does not tell its state: {error}"
        raise EngineError(problem) from error
