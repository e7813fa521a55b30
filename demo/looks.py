"""Where an answer needs something that stands far before it.

A tool's name needs its declaration, a colour the picture that has it, and what somebody has the sentence that says so.

To find that is understood suddenly and late from right answers alone, and with some seeds never: nothing is gained by attending to
the right place before the model can use what it finds there, and nothing can be learnt from a place that it does not attend to.
So training also says where to look (``text_model.missed_looks``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenizers import Encoding

from demo.conversation import Conversation
from demo.markup import Piece
from demo.packing import Look

_WORD = re.compile(r"[a-z]+")
_OWNED = re.compile(r"\ba (\w+ \w+)\.")
_WHICH = re.compile(r"(?<= in the )(?:first|second)\b")


class Looks:
    """Collects the looks of one conversation while its pieces are encoded, ``found`` in the end."""

    def __init__(self, conversation: Conversation) -> None:
        self.found: list[Look] = []
        self._names = [*conversation.names, *(tool.name for tool in conversation.tools)]
        self._pictures = conversation.pictures
        self._named: dict[str, tuple[int, int]] = {}
        self._seen: dict[int, tuple[int, int]] = {}
        self._owned: dict[str, tuple[int, int]] = {}

    def see_picture(self, index: int, start: int, count: int) -> None:
        """Note where the soft tokens of a picture are."""
        self._seen[index] = (start, start + count)

    def see_text(self, piece: Piece, encoded: Encoding, start: int) -> None:
        """Note the end of every name that is given and what is said to be somebody's, and what is needed before words that are learnt.

        Args:
            piece: With text.
            encoded: Its text as ids.
            start: Position of the first of them.
        """
        if not piece.learnt:
            for name in self._names:
                if name not in self._named and (found := re.search(rf"\b{re.escape(name)}\b", piece.text)):
                    last = start + _holder(encoded, found.end() - 1)
                    self._named[name] = (last, last + 1)
            for thing in _OWNED.finditer(piece.text):
                self._owned[thing[1]] = (start + _holder(encoded, thing.start(1)), start + _holder(encoded, thing.end(1) - 1) + 1)
            return
        for at, needed in (*self._needed_names(piece.text), *self._needed_pictures(piece.text), *self._needed_things(piece.text)):
            self.found.append(Look(start + _holder(encoded, at) - 1, *needed))

    def _needed_names(self, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
        for name in self._names:
            if text == name or text.startswith(f"call:{name}{{"):
                yield text.index(name), self._named[name]

    def _needed_pictures(self, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
        """Colours and shapes that only one of the pictures has, and which of two it is."""
        if not self._pictures:
            return
        for word in _WORD.finditer(text):
            owners = [index for index, picture in enumerate(self._pictures) if word[0] in (picture.color, picture.shape)]
            if len(owners) == 1 and owners[0] in self._seen:
                yield word.start(), self._seen[owners[0]]
        for word in _WHICH.finditer(text):
            yield word.start(), self._seen[("first", "second").index(word[0])]

    def _needed_things(self, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
        for thing in _OWNED.finditer(text):
            if thing[1] in self._owned:
                yield thing.start(1), self._owned[thing[1]]


def _holder(encoded: Encoding, at: int) -> int:
    """Return which of the ids holds a character."""
    index = encoded.char_to_token(at)
    if index is None:
        msg = f"no id holds character {at} of {encoded.tokens}"
        raise ValueError(msg)
    return index
