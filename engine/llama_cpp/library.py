"""The shared library of the pinned xllamacpp wheel: where it is, its functions' signatures, its log.

Nothing else in the package names ``xllamacpp``. The wheel's Python module is not imported: its extension file carries
llama.cpp, ggml and mtmd with their C names, and that is all that is used.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import logging
import sys
import threading
from collections import deque
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import EngineLoadError
from engine.llama_cpp.structs import (
    ABORT_MESSAGE_CALLBACK,
    FLOAT_POINTER,
    LOG_CALLBACK,
    LOG_LEVEL_CONT,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    Batch,
    ContextParams,
    ModelParams,
    VisionParams,
    VisionText,
)

logger = logging.getLogger(__name__)

PACKAGE = "xllamacpp"
SUPPORTED_VERSION = "2026.10.11549"
"""The only version whose structures were checked; another one may lay them out differently and would corrupt memory."""

MAX_SEQUENCES = 256
"""``LLAMA_MAX_SEQ``: sequence ids are below this in every build of that version."""

Signature = tuple[Any, tuple[Any, ...]]

SIGNATURES: dict[str, Signature] = {
    "ggml_log_set": (None, (LOG_CALLBACK, c_void_p)),
    "ggml_set_abort_callback": (c_void_p, (ABORT_MESSAGE_CALLBACK,)),
    "llama_backend_init": (None, ()),
    "llama_batch_get_one": (Batch, (c_void_p, c_int32)),
    "llama_context_default_params": (ContextParams, ()),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_free": (None, (c_void_p,)),
    "llama_get_logits": (FLOAT_POINTER, (c_void_p,)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams)),
    "llama_log_set": (None, (LOG_CALLBACK, c_void_p)),
    "llama_memory_seq_cp": (None, (c_void_p, c_int32, c_int32, c_int32, c_int32)),
    "llama_memory_seq_pos_min": (c_int32, (c_void_p, c_int32)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_model_default_params": (ModelParams, ()),
    "llama_model_desc": (c_int32, (c_void_p, c_void_p, c_size_t)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_meta_val_str": (c_int32, (c_void_p, c_char_p, c_void_p, c_size_t)),
    "llama_model_n_ctx_train": (c_int32, (c_void_p,)),
    "llama_model_n_embd_inp": (c_int32, (c_void_p,)),
    "llama_model_n_params": (c_uint64, (c_void_p,)),
    "llama_model_n_swa": (c_int32, (c_void_p,)),
    "llama_n_batch": (c_uint32, (c_void_p,)),
    "llama_n_ctx_seq": (c_uint32, (c_void_p,)),
    "llama_n_ubatch": (c_uint32, (c_void_p,)),
    "llama_set_causal_attn": (None, (c_void_p, c_bool)),
    "llama_state_seq_get_data_ext": (c_size_t, (c_void_p, c_void_p, c_size_t, c_int32, c_uint32)),
    "llama_state_seq_get_size_ext": (c_size_t, (c_void_p, c_int32, c_uint32)),
    "llama_state_seq_set_data_ext": (c_size_t, (c_void_p, c_void_p, c_size_t, c_int32, c_uint32)),
    "llama_vocab_get_text": (c_char_p, (c_void_p, c_int32)),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "mtmd_bitmap_free": (None, (c_void_p,)),
    "mtmd_bitmap_init": (c_void_p, (c_uint32, c_uint32, c_void_p)),
    "mtmd_context_params_default": (VisionParams, ()),
    "mtmd_decode_use_mrope": (c_bool, (c_void_p,)),
    "mtmd_decode_use_non_causal": (c_bool, (c_void_p, c_void_p)),
    "mtmd_default_marker": (c_char_p, ()),
    "mtmd_encode_chunk": (c_int32, (c_void_p, c_void_p)),
    "mtmd_free": (None, (c_void_p,)),
    "mtmd_get_output_embd": (POINTER(c_float), (c_void_p,)),
    "mtmd_helper_log_set": (None, (LOG_CALLBACK, c_void_p)),
    "mtmd_init_from_file": (c_void_p, (c_char_p, c_void_p, VisionParams)),
    "mtmd_input_chunk_get_n_tokens": (c_size_t, (c_void_p,)),
    "mtmd_input_chunk_get_type": (c_int, (c_void_p,)),
    "mtmd_input_chunks_free": (None, (c_void_p,)),
    "mtmd_input_chunks_get": (c_void_p, (c_void_p, c_size_t)),
    "mtmd_input_chunks_init": (c_void_p, ()),
    "mtmd_input_chunks_size": (c_size_t, (c_void_p,)),
    "mtmd_log_set": (None, (LOG_CALLBACK, c_void_p)),
    "mtmd_support_vision": (c_bool, (c_void_p,)),
    "mtmd_tokenize": (c_int32, (c_void_p, c_void_p, POINTER(VisionText), POINTER(c_void_p), c_size_t)),
}
"""Every C function that the core calls: result type and argument types."""


class LibraryLog:
    """Receives llama.cpp's log: warnings go on to ``logging``; the last errors are kept to explain a failed load."""

    def __init__(self, kept_lines: int = 20) -> None:
        self._lock = threading.Lock()
        self._errors: deque[str] = deque(maxlen=kept_lines)
        self._level = 0
        self.callback = LOG_CALLBACK(self._receive)

    def _receive(self, level: int, text: bytes, _user_data: int) -> None:
        level = self._level if level == LOG_LEVEL_CONT else level
        self._level = level
        if level < LOG_LEVEL_WARN:
            return
        line = text.decode("utf-8", "replace").strip()
        if not line:
            return
        if level == LOG_LEVEL_ERROR:
            with self._lock:
                self._errors.append(line)
        logger.log(logging.ERROR if level == LOG_LEVEL_ERROR else logging.DEBUG, "%s", line)

    def clear(self) -> None:
        """Forget kept errors; call before an operation whose failure shall be explained."""
        with self._lock:
            self._errors.clear()

    def first_error(self) -> str:
        """Return the first kept error: llama.cpp reports the cause first and the consequences after it."""
        with self._lock:
            return self._errors[0] if self._errors else "no reason was given"


LOG = LibraryLog()


def _write_fatal(message: bytes) -> None:
    # The process dies when this returns; logging may be unusable here, and gdb's backtrace (the default) takes seconds.
    sys.stderr.write(f"engine: llama.cpp stopped the process: {message.decode('utf-8', 'replace')}\n")
    sys.stderr.flush()


FATAL_CALLBACK = ABORT_MESSAGE_CALLBACK(_write_fatal)


def find_library() -> Path:
    """Return the path of the wheel's extension file.

    Raises:
        EngineLoadError: the wheel is missing, or has another version than the one whose layouts were checked.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        message = f"the package {PACKAGE} {SUPPORTED_VERSION} is not installed"
        raise EngineLoadError(message)
    version = importlib.metadata.version(PACKAGE)
    if version != SUPPORTED_VERSION:
        message = f"{PACKAGE} {version} is installed; this engine was checked with {SUPPORTED_VERSION} only"
        raise EngineLoadError(message)
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).glob(f"{PACKAGE}*.so")):
            return path
    message = f"{PACKAGE} {version} holds no shared library"
    raise EngineLoadError(message)


@cache
def load_library() -> Any:
    """Load the library once per process, declare its functions and take over its log.

    Raises:
        EngineLoadError: it cannot be found or loaded, or lacks a function.
    """
    path = find_library()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        message = f"{path.name} cannot be loaded: {error}"
        raise EngineLoadError(message) from error
    for name, (result, arguments) in SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            message = f"{path.name} has no function {name}"
            raise EngineLoadError(message) from error
        function.restype = result
        function.argtypes = list(arguments)
    for name in ("llama_log_set", "ggml_log_set", "mtmd_log_set", "mtmd_helper_log_set"):
        getattr(library, name)(LOG.callback, None)
    library.ggml_set_abort_callback(FATAL_CALLBACK)
    library.llama_backend_init()
    return library
