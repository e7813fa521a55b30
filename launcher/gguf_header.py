"""Reads the metadata at the head of a GGUF file: enough to tell what a model is without loading it.

Files are hostile input, so every length is checked against the file. Strings in arrays (the vocabulary) are counted,
not kept. The format is llama.cpp's, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_ENTRIES: Final = 4096
MAX_KEPT: Final = 4096
"""Numbers of an array that are kept; per-layer arrays are far shorter, vocabularies far longer."""
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

Value = int | float | bool | str | tuple[int | float | bool, ...]


class GgufError(Exception):
    """The file is not a GGUF file that can be read."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata of one file.

    Attributes:
        values: scalars, texts and numeric arrays by key.
        lengths: number of elements of every array by key, also of those whose elements were not kept.
        tensors: number of tensors that the file says it holds.
    """

    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: int

    def text(self, key: str) -> str | None:
        """Return a text, None when the key is absent or something else."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str, default: int | None = None) -> int | None:
        """Return a whole number, ``default`` when the key is absent or something else."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def per_layer(self, key: str, layers: int, default: int) -> tuple[int, ...]:
        """Return one whole number per layer: an array as it stands, or a scalar repeated."""
        value = self.values.get(key)
        if isinstance(value, tuple):
            numbers = tuple(int(number) for number in value[:layers])
            return numbers + (default,) * (layers - len(numbers))
        return (self.integer(key, default) or 0,) * layers


def read_header(path: Path) -> GgufHeader:
    """Read a file's metadata.

    Raises:
        GgufError: it is not a GGUF file, or cut off inside the metadata.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        if head != MAGIC:
            raise GgufError("it does not start with the letters GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header()
            except (struct.error, IndexError, OverflowError) as error:
                raise GgufError("it ends inside its own header") from error
            except UnicodeDecodeError as error:
                raise GgufError("its header holds text that is not UTF-8") from error


class _Reader:
    """A cursor over the file's bytes."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._at = len(MAGIC)

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in VERSIONS:
            raise GgufError(f"it has format version {version}; versions {VERSIONS[0]} and {VERSIONS[1]} can be read")
        tensors, entries = self._number("Q"), self._number("Q")
        if entries > MAX_ENTRIES:
            raise GgufError(f"its header claims {entries} entries")
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(entries):
            key = self._text()
            kind = self._number("I")
            if kind == _ARRAY:
                self._array(key, values, lengths)
            else:
                values[key] = self._text() if kind == _STRING else self._scalar(kind)
        return GgufHeader(MappingProxyType(values), MappingProxyType(lengths), tensors)

    def _array(self, key: str, values: dict[str, Value], lengths: dict[str, int]) -> None:
        kind, count = self._number("I"), self._number("Q")
        lengths[key] = count
        if kind == _STRING:
            self._skip_texts(count)
            return
        code = self._code(kind)
        if count <= MAX_KEPT:
            values[key] = struct.unpack_from(f"<{count}{code}", self._data, self._at)
        self._move(count * struct.calcsize(f"<{code}"))

    def _skip_texts(self, count: int) -> None:
        # A real vocabulary has 262,144 tokens and 514,906 merges: this loop is the whole cost of reading a header.
        unpack, data, at, size = struct.Struct("<Q").unpack_from, self._data, self._at, self._size
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
            if at > size:
                raise GgufError("it ends inside its own header")
        self._at = at

    def _scalar(self, kind: int) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(f"<{self._code(kind)}", self._data, self._at)[0]
        self._move(struct.calcsize(f"<{self._code(kind)}"))
        return value

    def _number(self, code: str) -> int:
        value: int = struct.unpack_from(f"<{code}", self._data, self._at)[0]
        self._move(struct.calcsize(f"<{code}"))
        return value

    def _text(self) -> str:
        length = self._number("Q")
        start = self._at
        self._move(length)
        return self._data[start : self._at].decode("utf-8")

    def _move(self, size: int) -> None:
        self._at += size
        if self._at > self._size:
            raise GgufError("it ends inside its own header")

    @staticmethod
    def _code(kind: int) -> str:
        if kind not in _SCALARS:
            raise GgufError(f"its header holds a value of unknown type {kind}")
        return _SCALARS[kind]
