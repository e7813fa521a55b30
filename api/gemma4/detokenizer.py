"""Ids to text at constant cost per token. Bytes that are not yet a whole character are held back.

Special tokens are the parser's; this module spells ordinary ones only.
"""

from __future__ import annotations

import codecs

from api.gemma4.tokenizer import Gemma4Tokenizer

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """The text of one stream of ordinary ids. The same text comes out however the ids are split into calls."""

    __slots__ = ("_decoder", "_pending", "_piece")

    def __init__(self, tokenizer: Gemma4Tokenizer) -> None:
        self._piece = tokenizer.piece
        self._decoder = _new_decoder("replace")
        self._pending = False

    @property
    def is_pending(self) -> bool:
        """Whether a character is incomplete."""
        return self._pending

    def feed(self, token_id: int) -> str:
        """Return the text that this id completes; empty while a character is incomplete."""
        piece = self._piece(token_id)
        if isinstance(piece, bytes):
            text = self._decoder.decode(piece)
            self._pending = bool(self._decoder.getstate()[0])
            return text
        if self._pending:
            return self.flush() + piece
        return piece

    def flush(self) -> str:
        """Give up on an incomplete character: return U+FFFD for it, or nothing when none is pending."""
        if not self._pending:
            return ""
        self._pending = False
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
