"""Stop texts: found across pieces, never leaked, with no more held back than could still become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopTexts:
    """Texts that end an answer. The one that does is part of it if they are ``shown``."""

    texts: tuple[str, ...] = ()
    shown: bool = False

    def __bool__(self) -> bool:
        return any(self.texts)


class StopMatcher:
    """Looks for the first of some texts in a stream, at constant cost per character (Aho and Corasick's automaton).

    The text that ends first ends the answer, and of two that end together the longer one: the result cannot depend on
    how the stream is split. With no texts everything is passed through.
    """

    __slots__ = ("_depths", "_fallbacks", "_held", "_lengths", "_shown", "_state", "_steps", "matched")

    def __init__(self, texts: Sequence[str], *, shown: bool = False) -> None:
        """Look for ``texts``; empty ones are ignored. The one that is found is shown or not."""
        self._shown = shown
        self._steps: list[dict[str, int]] = [{}]
        """For each state (a beginning of some text; 0 is the empty one), where a character leads."""
        self._depths = [0]
        """Length of the beginning that a state stands for."""
        self._lengths = [0]
        """Length of the longest text that ends in a state, 0 for none."""
        self._fallbacks = [0]
        """State of the longest proper end of a state that is a beginning, too."""
        for text in texts:
            self._insert(text)
        self._link()
        self._state = 0
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Return what is safe to show; with a match all that there is to show, and nothing from then on."""
        if not self._steps[0]:
            return text
        if self.matched is not None:
            return ""
        buffer = self._held + text
        for position in range(len(self._held), len(buffer)):
            self._advance(buffer[position])
            length = self._lengths[self._state]
            if length:
                end = position + 1
                self.matched = buffer[end - length : end]
                self._held = ""
                return buffer[: end if self._shown else end - length]
        safe = len(buffer) - self._depths[self._state]
        self._held = buffer[safe:]
        return buffer[:safe]

    def flush(self) -> str:
        """Return what was held back and start anew: nothing that follows continues it."""
        text, self._held = self._held, ""
        self._state = 0
        return text

    def _advance(self, character: str) -> None:
        """Go to the longest beginning that the text, with one more character, ends with."""
        state = self._state
        while state and character not in self._steps[state]:
            state = self._fallbacks[state]
        self._state = self._steps[state].get(character, 0)

    def _insert(self, text: str) -> None:
        """Add the states of one text."""
        state = 0
        for depth, character in enumerate(text, start=1):
            following = self._steps[state].setdefault(character, len(self._steps))
            if following == len(self._steps):
                self._steps.append({})
                self._depths.append(depth)
                self._lengths.append(0)
                self._fallbacks.append(0)
            state = following
        self._lengths[state] = len(text)

    def _link(self) -> None:
        """Set every state's fallback, shorter states first, and let it end what its fallback ends."""
        queue = list(self._steps[0].values())
        for state in queue:
            for character, following in self._steps[state].items():
                self._state = self._fallbacks[state]
                self._advance(character)
                self._fallbacks[following] = self._state
                self._lengths[following] = self._lengths[following] or self._lengths[self._state]
                queue.append(following)
