"""Quantises rows of weights with ggml's own function, so that the bytes are those that llama.cpp itself would write.

The pinned library exports ``ggml_quantize_chunk`` (``ggml/include/ggml.h``), though not the program around it that
reads and writes whole files. Which tensor takes which type is left to ``gguf_types``.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_bool, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from engine.errors import EngineLoadError
from engine.llama_cpp.library import load_library
from engine_build.errors import ExportError

SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "ggml_quantize_chunk": (c_size_t, (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)),
    "ggml_quantize_init": (None, (c_int,)),
    "ggml_quantize_requires_imatrix": (c_bool, (c_int,)),
}
"""The C functions that are called here: result type and argument types."""
MAX_THREADS: Final = 16
ROWS_PER_PIECE: Final = 256


def quantize_rows(rows: npt.NDArray[np.float32], encoding: GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """Return the bytes of ``rows``, ``[n, columns]``, in a quantised type; all cores take part.

    Raises:
        ExportError: the library cannot be loaded, or rows of this width cannot be written in this type.
    """
    block_values, block_bytes = GGML_QUANT_SIZES[encoding]
    count, columns = rows.shape
    if columns % block_values:
        raise ExportError(f"rows of {columns} values do not divide into blocks of {block_values} for {encoding.name}")
    library = _library()
    library.ggml_quantize_init(int(encoding))
    source = np.ascontiguousarray(rows, dtype=np.float32)
    row_bytes = columns // block_values * block_bytes
    out = np.empty(count * row_bytes, dtype=np.uint8)

    def quantize(start: int) -> int:
        part = min(ROWS_PER_PIECE, count - start)
        target = out.ctypes.data + start * row_bytes
        size: int = library.ggml_quantize_chunk(
            int(encoding), source[start:].ctypes.data, target, 0, part, columns, None
        )
        return size

    # The calls release the interpreter lock, and each writes to a place of its own.
    with ThreadPoolExecutor(_threads()) as threads:
        written = sum(threads.map(quantize, range(0, count, ROWS_PER_PIECE)))
    if written != out.size:
        raise ExportError(f"{encoding.name}: {written} bytes were written where {out.size} were expected")
    return out


@cache
def _library() -> Any:
    try:
        library = load_library()
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except (AttributeError, EngineLoadError) as error:
        raise ExportError(f"quantised GGUF files need llama.cpp's library: {error}") from error
    return library


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)
