"""A bounded memory of tokenised texts and declarations, so that a growing conversation is tokenised once."""

from __future__ import annotations

from collections import OrderedDict

_LONGEST = 20_000


class TokenCache:
    """Remembers ids by the text, or serialised form, that they came from; the oldest go when the bound is reached.

    May be shared between threads: each step is atomic, and a lost race costs no more than doing the work again.
    """

    def __init__(self, characters: int) -> None:
        """Remember up to so many characters of keys."""
        self._bound = characters
        self._used = 0
        self._entries: OrderedDict[str | bytes, tuple[int, ...]] = OrderedDict()
        self.get = self._entries.get

    def remember(self, key: str | bytes, ids: tuple[int, ...]) -> None:
        """Keep ids. Long keys are not kept: they rarely come again, and would push out many that do."""
        if len(key) > _LONGEST or key in self._entries:
            return
        self._entries[key] = ids
        self._used += len(key)
        while self._used > self._bound:
            try:
                dropped, _ = self._entries.popitem(last=False)
            except KeyError:
                self._used = 0
                return
            self._used -= len(dropped)

    def characters(self) -> int:
        """Return how many characters of keys are kept."""
        return sum(map(len, self._entries))
