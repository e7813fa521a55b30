"""The vision tower: one already sized RGB picture in, its soft-token embeddings out.

It owns the ``mtmd_context`` and a small cache of embeddings. Sizing is the API's work; the tower only proves that a
picture of the promised size gives the promised number of embeddings. Calls must come from one thread at a time.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import EngineLoadError, InvalidImageError
from engine.images import CELL_PIXELS, MAX_SOFT_TOKENS, image_key
from engine.llama_cpp.library import LOG, load_library
from engine.llama_cpp.model import check_gguf
from engine.llama_cpp.structs import VisionText

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.core import Image
    from engine.llama_cpp.model import Model

CACHE_BYTES = 256 * 2**20
IMAGE_CHUNK = 1
"""``MTMD_INPUT_CHUNK_TYPE_IMAGE``."""


class VisionTower:
    """Encodes pictures with the model's own vision weights (an mmproj GGUF file)."""

    def __init__(self, model: Model, path: Path, threads: int, *, use_gpu: bool = False) -> None:
        """Load the weights.

        Raises:
            EngineLoadError: the file is missing, damaged, or belongs to another model.
        """
        check_gguf(path, "mmproj")
        self._library = load_library()
        self._model = model
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._cache_bytes = 0
        self._handle = self._load(path, threads, use_gpu=use_gpu)
        try:
            self._check(path)
        except EngineLoadError:
            self.close()
            raise

    def _load(self, path: Path, threads: int, *, use_gpu: bool) -> int:
        params = self._library.mtmd_context_params_default()
        params.use_gpu = use_gpu
        params.n_threads = threads
        params.print_timings = False
        params.warmup = False
        # Pictures come sized to the caller's budget, so the tower must neither enlarge nor shrink any.
        params.image_min_tokens = 1
        params.image_max_tokens = MAX_SOFT_TOKENS
        LOG.clear()
        handle = self._library.mtmd_init_from_file(str(path).encode(), self._model.handle, params)
        if not handle:
            message = f"the mmproj file {path} cannot be loaded with this model: {LOG.first_error()}"
            raise EngineLoadError(message)
        return int(handle)

    def _check(self, path: Path) -> None:
        library = self._library
        probe_width = 2 * CELL_PIXELS
        good = (
            library.mtmd_support_vision(self._handle)
            and library.mtmd_decode_use_non_causal(self._handle, None)
            and not library.mtmd_decode_use_mrope(self._handle)
        )
        if good:
            try:
                with self._image_chunk(None, probe_width, CELL_PIXELS) as chunk:
                    good = library.mtmd_input_chunk_get_n_tokens(chunk) == probe_width // CELL_PIXELS
            except InvalidImageError:
                good = False
        if not good:
            message = f"the mmproj file {path} holds no Gemma 4 vision tower"
            raise EngineLoadError(message)

    def encode(self, image: Image) -> NDArray[np.float32]:
        """Return the picture's embeddings [soft_tokens, embedding_size].

        Raises:
            InvalidImageError: the tower failed on it.
        """
        key = image_key(image)
        cached = self._cache.get(key)
        if cached is not None:
            self._cache.move_to_end(key)
            return cached
        embeddings = self._encode(image)
        self._cache[key] = embeddings
        self._cache_bytes += embeddings.nbytes
        while self._cache_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cache_bytes -= dropped.nbytes
        return embeddings

    def _encode(self, image: Image) -> NDArray[np.float32]:
        library = self._library
        with self._image_chunk(bytes(image.rgb), image.width, image.height) as chunk:
            count = int(library.mtmd_input_chunk_get_n_tokens(chunk))
            if count != image.soft_tokens:
                message = f"a {image.width}x{image.height} image gave {count} soft tokens, not {image.soft_tokens}"
                raise InvalidImageError(message)
            LOG.clear()
            if library.mtmd_encode_chunk(self._handle, chunk) != 0:
                message = f"a {image.width}x{image.height} image cannot be encoded: {LOG.first_error()}"
                raise InvalidImageError(message)
            pointer = library.mtmd_get_output_embd(self._handle)
            # Copied: the tower's buffer is overwritten by the next picture.
            return np.ctypeslib.as_array(pointer, shape=(count, self._model.embedding_size)).copy()

    @contextmanager
    def _image_chunk(self, rgb: bytes | None, width: int, height: int) -> Iterator[int]:
        """Preprocess one picture (None: only count its tokens) and lend its image chunk."""
        library = self._library
        marker = library.mtmd_default_marker()
        text = VisionText(text=marker, text_len=len(marker), add_special=False, parse_special=True)
        bitmap = library.mtmd_bitmap_init(width, height, rgb)
        chunks = library.mtmd_input_chunks_init()
        try:
            bitmaps = (ctypes.c_void_p * 1)(bitmap)
            if library.mtmd_tokenize(self._handle, chunks, ctypes.byref(text), bitmaps, 1) != 0:
                message = f"a {width}x{height} image cannot be prepared: {LOG.first_error()}"
                raise InvalidImageError(message)
            pieces = [library.mtmd_input_chunks_get(chunks, i) for i in range(library.mtmd_input_chunks_size(chunks))]
            found = [piece for piece in pieces if library.mtmd_input_chunk_get_type(piece) == IMAGE_CHUNK]
            if len(found) != 1:
                message = f"a {width}x{height} image was cut into {len(found)} pieces"
                raise InvalidImageError(message)
            yield found[0]
        finally:
            library.mtmd_input_chunks_free(chunks)
            library.mtmd_bitmap_free(bitmap)

    def close(self) -> None:
        """Free the weights and the cache."""
        self._cache.clear()
        self._cache_bytes = 0
        if self._handle:
            self._library.mtmd_free(self._handle)
            self._handle = 0
