"""The header of a safetensors file: which tensors it holds, and where. No tensor is loaded.

The format (https://huggingface.co/docs/safetensors) is the header's length in eight bytes, the header as JSON, and the
tensors' bytes without gaps. A file may be anybody's, so everything that it says is checked.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import IO, Any, Final

LENGTH: Final = struct.Struct("<Q")
MAX_HEADER_BYTES: Final = 2**25
ELEMENT_BYTES: Final = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor's type and shape, and its bytes' place in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def read_tensors(file: IO[bytes], size: int) -> dict[str, StoredTensor]:
    """Return the tensors of a file of ``size`` bytes in the order of their places.

    Raises:
        ValueError: it is no whole safetensors file; the message says what is wrong.
        OSError: it cannot be read.
    """
    head = file.read(LENGTH.size)
    length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
    if not 1 < length <= min(MAX_HEADER_BYTES, size):
        raise ValueError("it is no safetensors file")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")  # noqa: TRY004 - the file is at fault, not the caller
    base = LENGTH.size + length
    tensors = {name: _tensor(name, entry, base) for name, entry in header.items() if name != "__metadata__"}
    tensors = dict(sorted(tensors.items(), key=lambda item: item[1].offset))
    end = base
    for name, tensor in tensors.items():
        if tensor.offset != end:
            raise ValueError(f"the tensor {name} is not where the one before it ends")
        end += tensor.size
    if end != size:
        raise ValueError(f"it has {size} bytes, and its header describes {end}")
    return tensors


def _tensor(name: str, entry: Any, base: int) -> StoredTensor:
    try:
        dtype, (begin, end) = entry["dtype"], entry["data_offsets"]
        shape = tuple(entry["shape"])
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the entry of the tensor {name} is malformed") from error
    if not whole or dtype not in ELEMENT_BYTES or end - begin != math.prod(shape) * ELEMENT_BYTES[dtype]:
        raise ValueError(f"the entry of the tensor {name} is malformed")
    return StoredTensor(dtype, shape, base + begin, end - begin)
