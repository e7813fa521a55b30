"""A loaded Gemma 4 GGUF file and its vocabulary's facts.

It owns the ``llama_model`` handle. Contexts (``context.py``) and the vision tower (``vision.py``) borrow it.
"""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING

from engine.errors import EngineLoadError
from engine.llama_cpp.library import LOG, load_library

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

ARCHITECTURE = "gemma4"
IMAGE_TOKEN = "<|image|>"  # noqa: S105 - a vocabulary entry, not a secret
GGUF_MAGIC = b"GGUF"


class Model:
    """Weights and vocabulary of one Gemma 4 text model.

    Attributes:
        handle: the ``llama_model`` pointer.
        name: ``general.name`` of the file, or the file's own name.
        vocab_size: number of ids; logits have this width.
        image_token_id: id of the image soft token, None when the vocabulary has none.
        embedding_size: width of one input embedding in floats.
        sliding_window: tokens that a sliding layer looks back.
        trained_context: positions that the model was trained for.
    """

    def __init__(self, path: Path, gpu_layers: int = 0) -> None:
        """Load the file.

        Raises:
            EngineLoadError: the file is missing, damaged, cut short, or no Gemma 4 text model.
        """
        check_gguf(path, "model")
        self._library = load_library()
        self.handle: int = self._load(path, gpu_layers)
        try:
            self._read_facts(path)
        except EngineLoadError:
            self.close()
            raise

    def _load(self, path: Path, gpu_layers: int) -> int:
        params = self._library.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        LOG.clear()
        handle = self._library.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            message = f"the model file {path} cannot be loaded: {LOG.first_error()}"
            raise EngineLoadError(message)
        return int(handle)

    def _read_facts(self, path: Path) -> None:
        library = self._library
        architecture = self.metadata("general.architecture")
        if architecture != ARCHITECTURE:
            message = f"the model file {path} is of architecture {architecture!r}, not {ARCHITECTURE!r}"
            raise EngineLoadError(message)
        vocab = library.llama_model_get_vocab(self.handle)
        self.name = self.metadata("general.name") or path.stem
        self.vocab_size = int(library.llama_vocab_n_tokens(vocab))
        self.embedding_size = int(library.llama_model_n_embd_inp(self.handle))
        self.sliding_window = int(library.llama_model_n_swa(self.handle))
        self.trained_context = int(library.llama_model_n_ctx_train(self.handle))
        self.image_token_id = self._find_token(vocab, IMAGE_TOKEN)

    def _find_token(self, vocab: int, text: str) -> int | None:
        # Special tokens stand at either end of the vocabulary, so this is short for real models; it runs once per load.
        wanted = text.encode()
        get_text = self._library.llama_vocab_get_text
        for token_id in reversed(range(self.vocab_size)):
            if get_text(vocab, token_id) == wanted:
                return token_id
        return None

    def metadata(self, key: str) -> str | None:
        """Return a scalar entry of the file's header as text, None when it has no such key."""
        buffer = ctypes.create_string_buffer(512)
        length = self._library.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def close(self) -> None:
        """Free the weights; every context of this model must be closed before."""
        if self.handle:
            self._library.llama_model_free(self.handle)
            self.handle = 0


def check_gguf(path: Path, role: str) -> None:
    """Refuse a file that cannot be a GGUF, so that the message names the real reason.

    Raises:
        EngineLoadError: it is missing, unreadable, or starts with something else.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        message = f"the {role} file {path} cannot be read: {error.strerror}"
        raise EngineLoadError(message) from error
    if magic != GGUF_MAGIC:
        message = f"the {role} file {path} is not a GGUF file"
        raise EngineLoadError(message)
