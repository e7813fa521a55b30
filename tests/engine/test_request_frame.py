"""A request in pieces is, put together, the message that the protocol makes of it; its pictures are not copied."""

from __future__ import annotations

import pytest

from engine.core import Image
from engine.request_frame import framed_request
from engine.step_messages import LENGTH, number_of
from engine.triton.protocol import service_pb2
from engine.wire import decode_request, encode_request


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("side", [48, 480])
def test_pieces_make_the_whole_message(tools, count, side):
    """Whatever reads the message finds the same request, number and pictures, behind the right length."""
    pictures = [bytes([shade]) * (side * 48 * 3) for shade in range(count)]
    wanted = tools.request((1, 2, 3), 4, images=tuple(Image(memoryview(rgb), side, 48) for rgb in pictures))

    data = b"".join(framed_request(300, wanted))

    (length,) = LENGTH.unpack_from(data)
    assert length == len(data) - LENGTH.size
    message = service_pb2.ModelInferRequest.FromString(data[LENGTH.size :])
    found = decode_request(message)
    assert number_of(message) == 300
    assert (found.request_id, found.prompt_ids, found.max_tokens) == (wanted.request_id, (1, 2, 3), 4)
    assert found.sampling == decode_request(encode_request(wanted)).sampling
    assert [(bytes(image.rgb), image.width, image.height) for image in found.images] == [
        (rgb, side, 48) for rgb in pictures
    ]


def test_pixels_are_not_copied(tools):
    """The pieces hold the picture's own memory."""
    pixels = bytearray(48 * 48 * 3)
    pieces = framed_request(1, tools.request((1,), 1, images=(Image(memoryview(pixels), 48, 48),)))

    pixels[0] = 7

    assert sum(piece[0] == 7 for piece in pieces if len(piece) == len(pixels)) == 1
