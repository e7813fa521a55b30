"""Raw KServe v2 tensors: little-endian bytes to and from plain Python values, without numpy.

Deltas are a few numbers long, so ``array`` and ``struct`` beat an array library several times over.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TYPE_CHECKING, Protocol

from engine.errors import InvalidRequestError
from engine.triton.protocol import service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

SWAP = sys.byteorder == "big"
TYPE_CODES = {"INT32": "i", "INT64": "q", "UINT64": "Q", "FP32": "f", "BOOL": "b"}
LENGTH = struct.Struct("<I")


class OutputWriter(Protocol):
    """Takes tensors one by one, in whatever form the message has that carries them."""

    def numbers(self, name: str, datatype: str, values: Sequence[float], shape: Sequence[int] | None = None) -> None:
        """Append a tensor of numbers; ``shape`` defaults to one dimension."""
        ...

    def texts(self, name: str, values: Sequence[bytes | memoryview]) -> None:
        """Append a BYTES tensor."""
        ...


class TensorWriter:
    """Appends tensors to one request's inputs or one response's outputs and to its raw contents."""

    def __init__(self, descriptors: Any, contents: Any) -> None:
        self._descriptors = descriptors
        self._contents = contents

    def numbers(self, name: str, datatype: str, values: Sequence[float], shape: Sequence[int] | None = None) -> None:
        """Append a tensor of numbers; ``shape`` defaults to one dimension."""
        packed = array(TYPE_CODES[datatype], values)
        if SWAP:
            packed.byteswap()
        self._descriptors.add(name=name, datatype=datatype, shape=shape or (len(values),))
        self._contents.append(packed.tobytes())

    def texts(self, name: str, values: Sequence[bytes | memoryview]) -> None:
        """Append a BYTES tensor."""
        parts: list[bytes | memoryview] = []
        for value in values:
            parts += (LENGTH.pack(len(value)), value)
        self._descriptors.add(name=name, datatype="BYTES", shape=(len(values),))
        self._contents.append(b"".join(parts))


class TensorReader:
    """Finds tensors by name and reads their values.

    Raises:
        InvalidRequestError: from every method, when a tensor is malformed; the message names it.
    """

    def __init__(self, descriptors: Iterable[Any], contents: Sequence[bytes]) -> None:
        self._tensors: dict[str, tuple[Any, bytes]] = {}
        listed = list(descriptors)
        if len(listed) != len(contents):
            message = f"{len(listed)} tensors are declared, but {len(contents)} raw contents are given"
            raise InvalidRequestError(message)
        for descriptor, content in zip(listed, contents, strict=True):
            self._tensors[descriptor.name] = (descriptor, content)

    def names(self) -> set[str]:
        """Return the names of all tensors."""
        return set(self._tensors)

    def numbers(self, name: str, datatype: str) -> array[Any] | None:
        """Return a tensor's values in order, None when it is absent."""
        found = self._tensors.get(name)
        if found is None:
            return None
        descriptor, content = found
        self._check_type(name, descriptor.datatype, datatype)
        values: array[Any] = array(TYPE_CODES[datatype])
        if len(content) % values.itemsize:
            message = f"the tensor {name} has {len(content)} bytes, which is no whole number of {datatype} values"
            raise InvalidRequestError(message)
        values.frombytes(content)
        if SWAP:
            values.byteswap()
        return values

    def number(self, name: str, datatype: str) -> Any:
        """Return the value of a tensor with one element, None when it is absent."""
        values = self.numbers(name, datatype)
        if values is None:
            return None
        if len(values) != 1:
            message = f"the tensor {name} has {len(values)} values instead of one"
            raise InvalidRequestError(message)
        return values[0]

    def texts(self, name: str) -> list[bytes] | None:
        """Return a BYTES tensor's elements, None when it is absent."""
        found = self._tensors.get(name)
        if found is None:
            return None
        descriptor, content = found
        self._check_type(name, descriptor.datatype, "BYTES")
        values: list[bytes] = []
        place = 0
        while place < len(content):
            start = place + LENGTH.size
            end = start + LENGTH.unpack_from(content, place)[0] if start <= len(content) else start
            if end > len(content):
                message = f"the tensor {name} is cut short"
                raise InvalidRequestError(message)
            values.append(content[start:end])
            place = end
        return values

    def text(self, name: str) -> bytes | None:
        """Return the element of a BYTES tensor with one element, None when it is absent."""
        values = self.texts(name)
        if values is None:
            return None
        if len(values) != 1:
            message = f"the tensor {name} has {len(values)} elements instead of one"
            raise InvalidRequestError(message)
        return values[0]

    @staticmethod
    def _check_type(name: str, given: str, wanted: str) -> None:
        if given != wanted:
            message = f"the tensor {name} is {given}, but must be {wanted}"
            raise InvalidRequestError(message)


def input_writer(request: service_pb2.ModelInferRequest) -> TensorWriter:
    """Return a writer for a request's inputs."""
    return TensorWriter(request.inputs, request.raw_input_contents)


def output_writer(response: service_pb2.ModelInferResponse) -> TensorWriter:
    """Return a writer for a response's outputs."""
    return TensorWriter(response.outputs, response.raw_output_contents)
