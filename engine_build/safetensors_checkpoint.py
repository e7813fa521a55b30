"""Reads tensors of a Hugging Face checkpoint, one file or shards, without loading more than is asked for.

The safetensors format (https://huggingface.co/docs/safetensors): an unsigned 64-bit little-endian header length, a JSON
header, then the raw little-endian data. It is read here with numpy alone, because bfloat16 has no numpy type and torch
must not be needed to serve. What the tensors mean is left to ``gguf_tensors``.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine_build.errors import CheckpointError
from engine_build.json_file import read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

INDEX_NAME = "model.safetensors.index.json"
# The limit that the safetensors library itself sets; no real header comes near it.
MAX_HEADER_BYTES = 100_000_000
LENGTH_BYTES = 8
# bfloat16 is read as its 16 raw bits, the upper half of a float32.
_RAW_TYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: its file, type (a safetensors type name), shape, and byte offset from the file's start."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return rows ``start`` to ``stop`` as float32 ``[stop - start, last dimension]``.

        All dimensions before the last count as rows, so a tensor of any rank can be read in pieces of bounded size.
        """
        columns = self.shape[-1]
        raw_type = _RAW_TYPES[self.dtype]
        raw = np.memmap(
            self.path,
            dtype=raw_type,
            mode="r",
            offset=self.offset + start * columns * raw_type.itemsize,
            shape=(stop - start, columns),
        )
        if self.dtype == "BF16":
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw.astype(np.float32)

    @property
    def size(self) -> int:
        """Number of bytes in the file."""
        return math.prod(self.shape) * _RAW_TYPES[self.dtype].itemsize

    @property
    def row_count(self) -> int:
        """Number of rows that ``rows`` can give."""
        return math.prod(self.shape[:-1])


def open_checkpoint(directory: Path) -> dict[str, StoredTensor]:
    """Return every tensor of the checkpoint by name, without reading data.

    Raises:
        CheckpointError: no weights, a missing shard, a damaged header, or a tensor that the index promises is missing.
    """
    tensors: dict[str, StoredTensor] = {}
    index_path = directory / INDEX_NAME
    if not index_path.is_file():
        paths = sorted(directory.glob("*.safetensors"))
        if not paths:
            msg = f"{directory}: no *.safetensors file"
            raise CheckpointError(msg)
        for path in paths:
            tensors.update(_read_header(path))
        return tensors
    weight_map = read_json_object(index_path, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict):
        msg = f"{index_path}: weight_map must be an object"
        raise CheckpointError(msg)
    for shard in sorted({str(name) for name in weight_map.values()}):
        if Path(shard).name != shard:
            msg = f"{index_path}: weight_map: {shard!r} is not a plain file name"
            raise CheckpointError(msg)
        tensors.update(_read_header(directory / shard))
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        msg = f"{index_path}: weight_map names {missing[0]!r}, which no shard has"
        raise CheckpointError(msg)
    return tensors


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """Parse and check the header of one safetensors file."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(LENGTH_BYTES)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == LENGTH_BYTES else 0
            if not 0 < header_bytes <= min(MAX_HEADER_BYTES, file_bytes - LENGTH_BYTES):
                msg = f"{path}: is not a safetensors file"
                raise CheckpointError(msg)
            header = json.loads(file.read(header_bytes))
    except OSError as exc:
        msg = f"{path}: cannot be read: {exc.strerror}"
        raise CheckpointError(msg) from exc
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        msg = f"{path}: damaged header: {exc}"
        raise CheckpointError(msg) from exc
    if not isinstance(header, dict):
        msg = f"{path}: damaged header: must be an object"
        raise CheckpointError(msg)
    header.pop("__metadata__", None)
    data_start = LENGTH_BYTES + header_bytes
    return {name: _stored_tensor(path, name, entry, data_start, file_bytes) for name, entry in header.items()}


def _stored_tensor(path: Path, name: str, entry: Mapping[str, Any], data_start: int, file_bytes: int) -> StoredTensor:
    """Check one header entry against the size of its file."""
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(side) for side in entry["shape"])
        begin, end = (int(edge) for edge in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as exc:
        msg = f"{path}: tensor {name!r}: damaged header entry"
        raise CheckpointError(msg) from exc
    if dtype not in _RAW_TYPES:
        known = ", ".join(_RAW_TYPES)
        msg = f"{path}: tensor {name!r}: type {dtype} is not supported (known: {known})"
        raise CheckpointError(msg)
    # A scalar is one row of one value.
    shape = shape or (1,)
    size_bytes = math.prod(shape) * _RAW_TYPES[dtype].itemsize
    if min(shape) < 1 or begin < 0 or end - begin != size_bytes or data_start + end > file_bytes:
        msg = f"{path}: tensor {name!r}: shape, offsets and file size do not agree"
        raise CheckpointError(msg)
    return StoredTensor(name, path, dtype, shape, data_start + begin)
