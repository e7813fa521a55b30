"""The step stream's messages: what one step drew for all sequences of a client, in one message. Pure translation.

The stream is a unix socket beside the gRPC service's, offered by name in the server's metadata. It carries the
protocol's own messages, each after its length, without gRPC's cost per message; ``docs/engine.md`` has the table. The
client numbers its sequences, responses name them by these numbers, and a request with ``CANCEL`` ends one.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING

from engine.core import EngineDelta, FinishReason, Usage
from engine.errors import EngineError
from engine.tensors import TensorReader, output_writer
from engine.triton.protocol import MODEL_NAME, service_pb2
from engine.wire import decode_delta, decode_error, encode_delta, encode_error, encode_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from engine.core import EngineRequest, Receiver

EXTENSION = "gemma4_step_stream"
"""The name under which a server's metadata offers the stream."""
SEQUENCE = "sequence"
"""The parameter that holds a sequence's number, chosen by the client and unique on its stream."""
CANCEL = "cancel"
LENGTH = struct.Struct("<I")
"""Before every message: its length in bytes."""

OUTPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "sequences": ("INT64", (-1,)),
    "output_lengths": ("INT32", (-1,)),
    "output_ids": ("INT32", (-1,)),
    "usage_rows": ("INT32", (-1,)),
    "usage": ("INT32", (-1, 3)),
    "finish_rows": ("INT32", (-1,)),
    "finish_reason": ("BYTES", (-1,)),
}
"""Tensors of a step: a row per delta, the ids of all rows one after the other, and what only some rows have, with the
numbers of these rows. A delta with log-probabilities, or an error, is a message of its own."""


def stream_path(endpoint: str) -> str | None:
    """Return where the step stream of a gRPC address is; None unless that is a unix socket."""
    if not endpoint.startswith("unix:"):
        return None
    return endpoint.removeprefix("unix:").removeprefix("//") + ".steps"


def framed(message: Any) -> bytes:
    """Return a message as it travels."""
    data: bytes = message.SerializeToString()
    return LENGTH.pack(len(data)) + data


def encode_numbered_request(number: int, request: EngineRequest) -> service_pb2.ModelInferRequest:
    """Return the message that starts a sequence under a number."""
    message = encode_request(request)
    message.parameters[SEQUENCE].int64_param = number
    return message


def encode_cancel(number: int) -> service_pb2.ModelInferRequest:
    """Return the message that ends a sequence."""
    message = service_pb2.ModelInferRequest(model_name=MODEL_NAME)
    message.parameters[SEQUENCE].int64_param = number
    message.parameters[CANCEL].bool_param = True
    return message


def number_of(message: Any) -> int | None:
    """Return the number that a request or a response carries."""
    parameters = message.parameters
    return int(parameters[SEQUENCE].int64_param) if SEQUENCE in parameters else None


def encode_news(
    news: Sequence[tuple[int, EngineDelta | EngineError]],
) -> Iterator[service_pb2.ModelStreamInferResponse]:
    """Yield the messages that say, in order, what is new of the sequences with these numbers.

    What comes one after the other and has a row's form shares a message.
    """
    for is_row, group in itertools.groupby(news, _is_row):
        if is_row:
            yield _encode_rows([(number, delta) for number, delta in group if isinstance(delta, EngineDelta)])
        else:
            yield from itertools.starmap(_encode_single, group)


def _is_row(entry: tuple[int, EngineDelta | EngineError]) -> bool:
    return isinstance(entry[1], EngineDelta) and not entry[1].logprobs


def _encode_single(number: int, content: EngineDelta | EngineError) -> service_pb2.ModelStreamInferResponse:
    if isinstance(content, EngineDelta):
        message = encode_delta("", content)
    else:
        message = service_pb2.ModelStreamInferResponse(error_message=encode_error(content))
    message.infer_response.parameters[SEQUENCE].int64_param = number
    return message


def _encode_rows(rows: list[tuple[int, EngineDelta]]) -> service_pb2.ModelStreamInferResponse:
    message = service_pb2.ModelStreamInferResponse()
    message.infer_response.model_name = MODEL_NAME
    writer = output_writer(message.infer_response)
    writer.numbers("sequences", "INT64", [number for number, _ in rows])
    writer.numbers("output_lengths", "INT32", [len(delta.token_ids) for _, delta in rows])
    writer.numbers("output_ids", "INT32", [token_id for _, delta in rows for token_id in delta.token_ids])
    usages = [(row, delta.usage) for row, (_, delta) in enumerate(rows) if delta.usage is not None]
    if usages:
        counts = [n for _, u in usages for n in (u.prompt_tokens, u.cached_tokens, u.completion_tokens)]
        writer.numbers("usage_rows", "INT32", [row for row, _ in usages])
        writer.numbers("usage", "INT32", counts, (len(usages), 3))
    ends = [(row, delta.finish_reason) for row, (_, delta) in enumerate(rows) if delta.finish_reason is not None]
    if ends:
        writer.numbers("finish_rows", "INT32", [row for row, _ in ends])
        writer.texts("finish_reason", [reason.value.encode() for _, reason in ends])
    return message


def deliver(message: service_pb2.ModelStreamInferResponse, receivers: dict[int, Receiver]) -> None:
    """Hand a message to the receivers of its sequences and drop those that have ended; unknown numbers are ignored.

    Raises:
        EngineError: the message is malformed.
    """
    number = number_of(message.infer_response)
    if number is None:
        _deliver_rows(message.infer_response, receivers)
    elif number in receivers:
        if message.error_message:
            receivers.pop(number).failed(decode_error(message.error_message))
        else:
            _hand_over(decode_delta(message), number, receivers)


def _deliver_rows(response: Any, receivers: dict[int, Receiver]) -> None:
    reader = TensorReader(response.outputs, response.raw_output_contents)
    numbers = reader.numbers("sequences", "INT64") or ()
    lengths = reader.numbers("output_lengths", "INT32") or ()
    ids = reader.numbers("output_ids", "INT32") or ()
    counts = reader.numbers("usage", "INT32") or ()
    rows = reader.numbers("usage_rows", "INT32") or ()
    usages = {row: Usage(*counts[3 * i : 3 * i + 3]) for i, row in enumerate(rows)}
    ends = dict(zip(reader.numbers("finish_rows", "INT32") or (), reader.texts("finish_reason") or (), strict=True))
    special = usages.keys() | ends.keys()
    find = receivers.get
    end = 0
    for row, (number, length) in enumerate(zip(numbers, lengths, strict=True)):
        start, end = end, end + length
        receiver = find(number)
        if receiver is None:
            continue
        if row in special:
            reason = FinishReason(ends[row].decode()) if row in ends else None
            _hand_over(EngineDelta(tuple(ids[start:end]), (), reason, usages.get(row)), number, receivers)
        else:
            receiver.ids((ids[start],) if length == 1 else tuple(ids[start:end]))


def _hand_over(delta: EngineDelta, number: int, receivers: dict[int, Receiver]) -> None:
    receiver = receivers[number]
    if delta.finish_reason is not None:
        del receivers[number]
    receiver.delta(delta)
