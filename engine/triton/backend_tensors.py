"""Tensors of Triton's Python backend to and from the engine's own values: the other form of ``engine.tensors``.

The module ``triton_python_backend_utils`` exists only inside the backend's process, so it is handed in.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

from engine.tensors import TYPE_CODES, TensorReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

NUMPY_TYPES = {"INT32": np.int32, "INT64": np.int64, "UINT64": np.uint64, "FP32": np.float32, "BOOL": np.bool_}


class BackendReader(TensorReader):
    """Reads a request's inputs. Triton has checked names and datatypes against the model's configuration."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        """Take the tensors out of shared memory, which ends with the request."""
        super().__init__((), ())
        self._arrays: dict[str, Any] = {tensor.name(): tensor.as_numpy() for tensor in inputs}

    def names(self) -> set[str]:
        """Return the names of all tensors."""
        return set(self._arrays)

    def numbers(self, name: str, datatype: str) -> array[Any] | None:
        """Return a tensor's values in order, None when it is absent."""
        values = self._arrays.get(name)
        return None if values is None else array(TYPE_CODES[datatype], values.tobytes())

    def texts(self, name: str) -> list[bytes] | None:
        """Return a BYTES tensor's elements, None when it is absent."""
        values = self._arrays.get(name)
        return None if values is None else values.ravel().tolist()


class BackendWriter:
    """Collects a response's outputs."""

    def __init__(self, backend: Any) -> None:
        """Prepare; ``backend`` is the module ``triton_python_backend_utils``."""
        self._backend = backend
        self.tensors: list[Any] = []

    def numbers(self, name: str, datatype: str, values: Sequence[float], shape: Sequence[int] | None = None) -> None:
        """Append a tensor of numbers; ``shape`` defaults to one dimension."""
        numbers: NDArray[Any] = np.array(values, NUMPY_TYPES[datatype])
        self.tensors.append(self._backend.Tensor(name, numbers if shape is None else numbers.reshape(shape)))

    def texts(self, name: str, values: Sequence[bytes | memoryview]) -> None:
        """Append a BYTES tensor."""
        self.tensors.append(self._backend.Tensor(name, np.array([bytes(value) for value in values], np.object_)))
