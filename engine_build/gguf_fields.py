"""Reads the key-value part of a GGUF file, and nothing else of it, fast enough for a vocabulary of 262,144 tokens.

The ``gguf`` package's reader makes numpy views of every string, which takes seconds and hundreds of megabytes there.
Files come from users, so every length is checked against the file before it is believed. What keys mean is left to the
callers.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine_build.errors import GGUFFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Scalar = int | float | bool | str
Value = Scalar | list[Scalar]

MAGIC = b"GGUF"
SUPPORTED_VERSIONS = (2, 3)
# Far above any real file, low enough that a damaged one is refused at once.
MAX_FIELDS = 100_000
STRING_TYPE, ARRAY_TYPE = 8, 9
_FORMATS: Mapping[int, str] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
)


def read_fields(path: Path) -> dict[str, Value]:
    """Return every field of a GGUF file by key; arrays come as lists, and nested arrays are refused.

    Raises:
        GGUFFileError: the file is missing, is not GGUF, is of an unknown version, or ends too soon.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _FieldReader(path, data).fields()
    except OSError as exc:
        msg = f"{path}: cannot be read: {exc.strerror}"
        raise GGUFFileError(msg) from exc
    except (struct.error, ValueError) as exc:
        # mmap refuses an empty file with ValueError; struct.error and UnicodeDecodeError mean a cut or damaged one.
        msg = f"{path}: is not a GGUF file, or is damaged"
        raise GGUFFileError(msg) from exc


class _FieldReader:
    """A position in the mapped file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._position = 0

    def fields(self) -> dict[str, Value]:
        """Read the header and every field."""
        if self._data[:4] != MAGIC:
            msg = f"{self._path}: is not a GGUF file"
            raise GGUFFileError(msg)
        self._position = 4
        version = self._number("I")
        if version not in SUPPORTED_VERSIONS:
            msg = f"{self._path}: GGUF version {version} is not supported"
            raise GGUFFileError(msg)
        self._number("Q")  # number of tensors
        count = int(self._number("Q"))
        if count > MAX_FIELDS:
            msg = f"{self._path}: is damaged: {count} fields"
            raise GGUFFileError(msg)
        fields: dict[str, Value] = {}
        for _ in range(count):
            key = self._strings(1)[0]
            fields[key] = self._value(int(self._number("I")))
        return fields

    def _number(self, code: str) -> int | float | bool:
        """Read one number."""
        return self._numbers(code, 1)[0]

    def _numbers(self, code: str, count: int) -> tuple[int | float | bool, ...]:
        """Read ``count`` numbers."""
        size = struct.calcsize(code) * count
        if size > len(self._data) - self._position:
            msg = f"{self._path}: ends too soon"
            raise GGUFFileError(msg)
        values = struct.unpack_from(f"<{count}{code}", self._data, self._position)
        self._position += size
        return values

    def _strings(self, count: int) -> list[str]:
        """Read ``count`` strings, each a 64-bit length and UTF-8 bytes."""
        data, position, end = self._data, self._position, len(self._data)
        if count > (end - position) // 8:
            msg = f"{self._path}: ends too soon"
            raise GGUFFileError(msg)
        unpack = struct.Struct("<Q").unpack_from
        strings: list[str] = []
        for _ in range(count):
            (length,) = unpack(data, position)
            position += 8 + length
            if position > end:
                msg = f"{self._path}: ends too soon"
                raise GGUFFileError(msg)
            strings.append(data[position - length : position].decode("utf-8"))
        self._position = position
        return strings

    def _value(self, kind: int) -> Value:
        """Read one value of a GGUF type."""
        if kind == STRING_TYPE:
            return self._strings(1)[0]
        if kind != ARRAY_TYPE:
            return self._number(self._format(kind))
        element, count = int(self._number("I")), int(self._number("Q"))
        if element == STRING_TYPE:
            return list[Scalar](self._strings(count))
        return list[Scalar](self._numbers(self._format(element), count))

    def _format(self, kind: int) -> str:
        """Return the struct code of a number type."""
        code = _FORMATS.get(kind)
        if code is None:
            msg = f"{self._path}: field type {kind} is not supported"
            raise GGUFFileError(msg)
        return code
