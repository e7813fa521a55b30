"""Stop texts: found across pieces, never leaked, with no more held back than could still become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class StopTexts:
    """Texts that end an answer. The one that does is part of it if they are ``shown``."""

    texts: tuple[str, ...] = ()
    shown: bool = False

    def __bool__(self) -> bool:
        return any(self.texts)


class _Automaton:
    """The beginnings of some texts and how they lead to each other (Aho and Corasick's automaton).

    A state is a beginning; 0 is the empty one. Nothing changes once it is made, so matchers share it.

    Attributes:
        steps: for each state, where a character leads.
        depths: length of the beginning that a state stands for.
        lengths: length of the longest text that ends in a state, 0 for none.
        fallbacks: state of the longest proper end of a state that is a beginning, too.
    """

    __slots__ = ("depths", "fallbacks", "lengths", "steps")

    def __init__(self, texts: Sequence[str]) -> None:
        self.steps: list[dict[str, int]] = [{}]
        self.depths = [0]
        self.lengths = [0]
        self.fallbacks = [0]
        for text in texts:
            self._insert(text)
        self._link()

    def following(self, state: int, character: str) -> int:
        """Return the state of the longest beginning that a state's text, with one more character, ends with."""
        while state and character not in self.steps[state]:
            state = self.fallbacks[state]
        return self.steps[state].get(character, 0)

    def _insert(self, text: str) -> None:
        """Add the states of one text."""
        state = 0
        for depth, character in enumerate(text, start=1):
            following = self.steps[state].setdefault(character, len(self.steps))
            if following == len(self.steps):
                self.steps.append({})
                self.depths.append(depth)
                self.lengths.append(0)
                self.fallbacks.append(0)
            state = following
        self.lengths[state] = len(text)

    def _link(self) -> None:
        """Set every state's fallback, shorter states first, and let it end what its fallback ends."""
        queue = list(self.steps[0].values())
        for state in queue:
            for character, following in self.steps[state].items():
                fallback = self.following(self.fallbacks[state], character)
                self.fallbacks[following] = fallback
                self.lengths[following] = self.lengths[following] or self.lengths[fallback]
                queue.append(following)


@lru_cache(maxsize=1)
def _automaton(texts: tuple[str, ...]) -> _Automaton:
    """Return the automaton of some texts; the choices of one request come in a row and have the same."""
    return _Automaton(texts)


class StopMatcher:
    """Looks for the first of some texts in a stream, at constant cost per character.

    The text that ends first ends the answer, and of two that end together the longer one: the result cannot depend on
    how the stream is split. With no texts everything is passed through.
    """

    __slots__ = ("_automaton", "_held", "_shown", "_state", "matched")

    def __init__(self, texts: Sequence[str], *, shown: bool = False) -> None:
        """Look for ``texts``; empty ones are ignored. The one that is found is shown or not."""
        self._shown = shown
        self._automaton = _automaton(tuple(texts))
        self._state = 0
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Return what is safe to show; with a match all that there is to show, and nothing from then on."""
        automaton = self._automaton
        if not automaton.steps[0]:
            return text
        if self.matched is not None:
            return ""
        buffer = self._held + text
        for position in range(len(self._held), len(buffer)):
            self._state = automaton.following(self._state, buffer[position])
            length = automaton.lengths[self._state]
            if length:
                end = position + 1
                self.matched = buffer[end - length : end]
                self._held = ""
                return buffer[: end if self._shown else end - length]
        safe = len(buffer) - automaton.depths[self._state]
        self._held = buffer[safe:]
        return buffer[:safe]

    def flush(self) -> str:
        """Return what was held back and start anew: nothing that follows continues it."""
        text, self._held = self._held, ""
        self._state = 0
        return text
