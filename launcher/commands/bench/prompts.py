"""Makes prompts of a wanted length for a model whose tokenizer is not known here.

Two requests tell how many tokens a word costs; after that words are counted. What a prompt really had is what the
server reports, and that is what the results show.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

WORDS: Final = (
    "apple", "bread", "chair", "door", "earth", "field", "green", "house", "iron", "jacket", "kettle", "light", "money",
    "night", "ocean", "paper", "queen", "river", "stone", "table", "under", "voice", "water", "yellow", "blue",
    "morning", "garden", "window", "summer", "winter", "letter", "number", "person", "city", "school", "story", "music",
)  # fmt: skip
PROBE_WORDS: Final = (8, 72)
"""Lengths of the two requests that measure the tokens of a word."""


@dataclass(frozen=True, slots=True)
class WordCost:
    """How many tokens prompts have: ``fixed`` for everything around the words, ``each`` for a word."""

    fixed: float
    each: float

    @classmethod
    def from_probes(cls, tokens: tuple[int, int]) -> WordCost:
        """Read it off the token counts of two prompts with ``PROBE_WORDS`` words."""
        each = max((tokens[1] - tokens[0]) / (PROBE_WORDS[1] - PROBE_WORDS[0]), 0.1)
        return cls(max(tokens[0] - each * PROBE_WORDS[0], 0.0), each)

    def words(self, tokens: int) -> int:
        """Return how many words make a prompt of about so many tokens, at least one."""
        return max(round((tokens - self.fixed) / self.each), 1)


def prompt(source: random.Random, words: int) -> str:
    """Return random words; no two prompts begin alike, so that no server can reuse the work for another."""
    return " ".join(source.choice(WORDS) for _ in range(words))
