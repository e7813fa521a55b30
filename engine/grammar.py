"""Grammars: compiling llguidance's Lark text, and masking logits with it.

The only module that knows llguidance. Compiling happens off the event loop and off the step thread (the caller sees to
that; llguidance releases the interpreter lock meanwhile); masking happens in the step thread of a core that draws ids
itself. A core whose engine masks on its own compiles here first, so that a bad grammar is refused in the same words,
and follows along to know where it ends.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from engine.errors import EngineLoadError, GrammarMismatchError, InvalidGrammarError
from engine.logit_mask import MaskWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAX_GRAMMAR_CHARACTERS = 1_000_000
CACHED_GRAMMARS = 64
MAX_ERROR_CHARACTERS = 500


class GrammarState:
    """Where one sequence is in its grammar."""

    def __init__(self, matcher: LLMatcher, stop_ids: Sequence[int], writer: MaskWriter) -> None:
        self._matcher = matcher
        self._writer = writer
        self._stop_ids = np.array(stop_ids, dtype=np.int64)

    def mask(self, row: NDArray[np.float32], *, stops_allowed: bool) -> bool:
        """Set the logits of all ids that the grammar forbids here to minus infinity.

        Stop ids are allowed where the grammar may end, besides those that the grammar spells itself.

        Returns:
            False when nothing is left to draw; then the sequence is at its end.

        Raises:
            InvalidGrammarError: the grammar hit one of llguidance's limits for one token.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        if not (stops_allowed and len(self._stop_ids) and self._matcher.is_accepting()):
            return self._writer.write(row, bits)
        stops = row[self._stop_ids]
        left = self._writer.write(row, bits)
        row[self._stop_ids] = stops
        return left or bool(np.isfinite(stops.max()))

    def begin(self, token_ids: Sequence[int]) -> None:
        """Advance by ids that were there before.

        Raises:
            GrammarMismatchError: the grammar does not take them.
        """
        taken = self._matcher.try_consume_tokens(list(token_ids))
        self._check()
        if taken < len(token_ids):
            message = (
                "the answer has begun with something that does not fit what it is held to: "
                f"of its {len(token_ids)} tokens the first {taken} do"
            )
            raise GrammarMismatchError(message)

    def accept(self, token_id: int) -> None:
        """Advance by a drawn id.

        Raises:
            InvalidGrammarError: the grammar did not take it, which the mask rules out unless a limit was hit.
        """
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            message = f"the grammar became too complex while generating: {_shorten(self._matcher.get_error())}"
            raise InvalidGrammarError(message)

    @property
    def is_finished(self) -> bool:
        """Whether the grammar has ended and nothing may follow."""
        return bool(self._matcher.is_stopped())

    @property
    def may_end(self) -> bool:
        """Whether what was taken so far is complete, though more may follow."""
        return bool(self._matcher.is_accepting())


class GrammarCompiler:
    """Compiles grammars for one vocabulary and keeps the most recently used ones.

    Compiling is thread-safe; the states that it makes share what they mask with, so they belong to one thread.
    """

    def __init__(self, tokenizer_path: Path, vocab_size: int) -> None:
        """Build llguidance's view of the vocabulary (seconds for 262,144 ids).

        Raises:
            EngineLoadError: ``tokenizer.json`` is missing or is not understood.
        """
        try:
            text = tokenizer_path.read_text(encoding="utf-8")
        except OSError as error:
            message = f"the tokenizer file {tokenizer_path} cannot be read: {error.strerror}"
            raise EngineLoadError(message) from error
        try:
            self._tokenizer = LLTokenizer(text, n_vocab=vocab_size)
        except (ValueError, RuntimeError) as error:
            message = f"the tokenizer file {tokenizer_path} does not fit the model: {error}"
            raise EngineLoadError(message) from error
        self._writer = MaskWriter(vocab_size)
        self._lock = threading.Lock()
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def compile(self, text: str, stop_ids: Sequence[int], begun: Sequence[int] = ()) -> GrammarState:
        """Compile a grammar, or copy it from the cache, and advance it by the ids that the answer has begun with.

        Raises:
            InvalidGrammarError: it is too long or does not compile.
            GrammarMismatchError: the answer has begun otherwise.
        """
        with self._lock:
            matcher = self._compiled.get(text)
            if matcher is not None:
                self._compiled.move_to_end(text)
        if matcher is None:
            matcher = self._compile(text)
            with self._lock:
                self._compiled[text] = matcher
                while len(self._compiled) > CACHED_GRAMMARS:
                    self._compiled.popitem(last=False)
        state = GrammarState(matcher.deep_copy(), stop_ids, self._writer)
        if begun:
            state.begin(begun)
        return state

    def _compile(self, text: str) -> LLMatcher:
        if len(text) > MAX_GRAMMAR_CHARACTERS:
            message = f"the grammar has {len(text)} characters; at most {MAX_GRAMMAR_CHARACTERS} are taken"
            raise InvalidGrammarError(message)
        matcher = LLMatcher(self._tokenizer, text, log_level=0)
        if matcher.is_error():
            message = f"the grammar does not compile: {_shorten(matcher.get_error())}"
            raise InvalidGrammarError(message)
        # The first mask builds lexer tables lazily; doing it here keeps that out of the step thread.
        matcher.compute_bitmask()
        if matcher.is_error():
            message = f"the grammar is too complex: {_shorten(matcher.get_error())}"
            raise InvalidGrammarError(message)
        return matcher


def _shorten(text: str) -> str:
    # After the reason comes the whole state of the matcher.
    return text.partition("\n<state>")[0].strip()[:MAX_ERROR_CHARACTERS]
