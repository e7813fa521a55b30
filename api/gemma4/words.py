"""Tokenising word by word, where that gives exactly the ids of the whole text.

Byte-pair merges only ever make tokens of the vocabulary. In Gemma 4's, no token goes on from one word into the space
before the next, or from a line into its end, but for a handful that are looked for in the text. So words can be
tokenised one by one and remembered, and most words of a new text were in an earlier one. What cannot be split this
way is left to the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.models import BPE

from api.gemma4.token_cache import TokenCache

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How the vocabulary writes a space inside a piece."""

_WORD = re.compile(r" *[^ \n]+| +|\n+")
_CROSSES = re.compile(rf"[^{SPACE}]{SPACE}|[^\n]\n|\n[^\n]")
_MOST_CROSSINGS = 32
_MOST_NEW = 4_000
"""New words of one prompt that are learned; a text of more is rather a table than prose."""
_CHARACTERS = 300_000


class Words:
    """The ids of words that were seen before, within a bound. May be shared between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Find out whether this vocabulary's texts can be split, and where they cannot."""
        self._tokenizer = tokenizer
        self._newline = tokenizer.token_to_id("\n")
        self._unsplittable = _unsplittable(tokenizer)
        self._known = TokenCache(_CHARACTERS)

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...] | None]:
        """Tokenise texts; None for each that is for the caller to tokenise."""
        barred = self._unsplittable
        if barred is None:
            return [None] * len(texts)
        split = [None if any(part in text for part in barred) else _WORD.findall(text) for text in texts]
        words = set(chain.from_iterable(filter(None, split)))
        ids = {word: self._known.get(word) for word in words}
        missing = [word for word, found in ids.items() if found is None]
        if missing and not self._learn(missing, ids):
            return [None] * len(texts)
        return [None if parts is None else _joined(parts, ids) for parts in split]

    def forget(self) -> None:
        """Drop every word that was learned."""
        self._known = TokenCache(_CHARACTERS)

    def _learn(self, words: list[str], ids: dict[str, tuple[int, ...] | None]) -> bool:
        """Tokenise new words in one go, one a line: the ids between two line ends are a word's."""
        if len(words) > _MOST_NEW:
            return False
        # A run of line ends is a word of its own, and would not be told from the ends of the lines.
        lines = [word for word in words if word[0] != "\n"]
        for word in words:
            if word[0] == "\n":
                ids[word] = tuple(self._encode(word))
        try:
            found = self._encode("\n".join(lines))
        except TypeError:  # half of a surrogate pair
            return False
        start = 0
        for word in lines:
            try:
                end = found.index(self._newline, start)
            except ValueError:
                end = len(found)
            ids[word] = tuple(found[start:end])
            start = end + 1
        for word in words:
            self._known.remember(word, ids[word] or ())
        return True

    def _encode(self, text: str) -> Sequence[int]:
        # Not as a batch, which would be a little faster but starts a thread for every core.
        ids: Sequence[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _joined(words: Iterable[str], ids: Mapping[str, tuple[int, ...] | None]) -> tuple[int, ...]:
    return tuple(chain.from_iterable(map(ids.__getitem__, words)))  # type: ignore[arg-type] # all are there by now


def _unsplittable(tokenizer: Tokenizer) -> tuple[str, ...] | None:
    """Return the texts that keep a text from being split; None where none may be."""
    model = tokenizer.model
    plain = isinstance(model, BPE) and model.byte_fallback and not model.continuing_subword_prefix
    if not plain or tokenizer.token_to_id("\n") is None or not _only_replaces_spaces(tokenizer):
        return None
    # The vocabulary has words by the hundred thousand: most are sorted out without a pattern.
    crossing = [
        piece.replace(SPACE, " ")
        for piece in tokenizer.get_vocab(with_added_tokens=False)
        if (SPACE in piece[1:] or "\n" in piece) and _CROSSES.search(piece)
    ]
    if len(crossing) > _MOST_CROSSINGS or any("\n" in text for text in crossing):
        return None
    return (SPACE, *crossing)


def _only_replaces_spaces(tokenizer: Tokenizer) -> bool:
    """Tell whether text reaches the merges whole, and changed in nothing but its spaces."""
    normaliser, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    if normaliser is None or json.loads(normaliser.__getstate__()) != {
        "type": "Replace",
        "pattern": {"String": " "},
        "content": SPACE,
    }:
        return False
    if splitter is None:
        return True
    # Splitting at spaces does nothing after they were all replaced.
    state = json.loads(splitter.__getstate__())
    return bool(state["type"] == "Split" and state["pattern"] == {"String": " "})
