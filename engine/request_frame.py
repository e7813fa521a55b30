"""A request as it travels on the step stream: one message in pieces, so that nobody copies its pictures.

Inside a message of the protocol's own making pixels would be copied four times, all of it while the event loop stands
still: 4 ms for one picture, 100 ms and more for several large ones.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from engine.step_messages import LENGTH, encode_numbered_request, framed
from engine.tensors import LENGTH as TEXT_LENGTH
from engine.tensors import input_writer
from engine.triton.protocol import service_pb2

if TYPE_CHECKING:
    from engine.core import EngineRequest

_MORE = 0x80
"""Marks a byte of a number after which more follow."""
_LENGTH_DELIMITED = 2
"""The type of a field that says how long it is."""
_RAW_CONTENTS = service_pb2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number


def framed_request(number: int, request: EngineRequest) -> list[bytes | memoryview]:
    """Return the message that starts a sequence under a number, after its length; pictures are pieces of their own."""
    if not request.images:
        return [framed(encode_numbered_request(number, request))]
    message = encode_numbered_request(number, dataclasses.replace(request, images=()))
    writer = input_writer(message)
    sizes = [side for image in request.images for side in (image.height, image.width)]
    writer.numbers("image_sizes", "INT32", sizes, (len(request.images), 2))
    message.inputs.add(name="image_bytes", datatype="BYTES", shape=(len(request.images),))
    pieces = [piece for image in request.images for piece in (TEXT_LENGTH.pack(len(image.rgb)), image.rgb)]
    # What a message holds last may be put behind what was serialised, by the rules of protocol buffers.
    tag = _varint(_RAW_CONTENTS << 3 | _LENGTH_DELIMITED)
    head = message.SerializeToString() + tag + _varint(sum(map(len, pieces)))
    return [LENGTH.pack(sum(map(len, pieces), len(head))) + head, *pieces]


def _varint(number: int) -> bytes:
    """Return a number as protocol buffers write it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number >= _MORE:
        written.append(number % _MORE | _MORE)
        number //= _MORE
    written.append(number)
    return bytes(written)
