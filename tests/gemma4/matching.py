"""Grammars run on the real vocabulary with the matcher that the engine uses."""

from __future__ import annotations

import random
from collections.abc import Sequence

import llguidance
import numpy as np

from api.gemma4.tokenizer import Gemma4Tokenizer


class GrammarMatcher:
    """Compiles grammars for one vocabulary and checks or draws ids."""

    def __init__(self, tokenizer_json: str, tokenizer: Gemma4Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._native = llguidance.LLTokenizer(tokenizer_json, eos_token=tokenizer.special.eos)

    def compile(self, grammar: str) -> llguidance.LLMatcher:
        """Compile, and fail the test with the grammar when it is invalid."""
        matcher = llguidance.LLMatcher(self._native, grammar, log_level=0)
        assert not matcher.get_error(), f"{matcher.get_error()}\n{grammar}"
        return matcher

    def accepts(self, grammar: str, ids: Sequence[int]) -> bool:
        """Tell whether ids are exactly one finished answer."""
        matcher = self.compile(grammar)
        return all(not matcher.is_stopped() and matcher.consume_token(token_id) for token_id in ids) and bool(
            matcher.is_stopped() and matcher.is_accepting()
        )

    def accepts_text(self, grammar: str, text: str) -> bool:
        """Tell whether text with spelled markers is one finished answer."""
        return self.accepts(grammar, self.tokenizer.encode_marked(text))

    def draw(self, grammar: str, seed: int, *, limit: int = 400, begun: Sequence[int] = ()) -> list[int] | None:
        """Draw a random answer that the grammar allows, or its rest; None when it does not end in time."""
        matcher = self.compile(grammar)
        assert all(matcher.consume_token(token_id) for token_id in begun), "the grammar refuses the beginning"
        chance = random.Random(seed)
        special = np.array(sorted(self.tokenizer.special_ids))
        closers = np.array([self.tokenizer.encode(text)[0] for text in ("}", "]", "}}", '"', ",", ":")])
        ids: list[int] = []
        while not matcher.is_stopped():
            if len(ids) == limit:
                return None
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
            ending = np.concatenate([special[bits[special] == 1], closers[bits[closers] == 1]])
            allowed = ending if len(ending) and chance.random() < 0.5 + len(ids) / limit else np.flatnonzero(bits)
            assert len(allowed), "the grammar leads into a dead end"
            ids.append(int(allowed[chance.randrange(len(allowed))]))
            assert matcher.consume_token(ids[-1])
        return ids
