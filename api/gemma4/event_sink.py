"""Where parsed text goes: joined into events by kind, with the white space that may belong to the format held back.

The newline before a thought's close marker and white space beside calls are the format's; all other text is passed on.
Stop texts end the answer's text here. What belongs where is ``api.gemma4.parse``'s to know.
"""

from __future__ import annotations

from api.gemma4.events import CallDelta, CallEnd, CallStart, ContentDelta, Event, ReasoningDelta
from api.gemma4.stop import StopMatcher, StopTexts


class EventSink:
    """Collects events until they are taken. ``thinking`` tells which kind of text is being written."""

    def __init__(self, stop: StopTexts) -> None:
        """Start in the answer; its text ends with the first of the ``stop`` texts."""
        self._stop = StopMatcher(stop.texts, shown=stop.shown)
        self._has_stops = bool(stop)
        self._events: list[Event] = []
        self._texts: list[str] = []
        self._blank: list[str] = []
        self._arguments: list[str] = []
        self._index = 0
        self._lost_newline = False
        self._after_call = False
        self.thinking = False
        self.stopped = False

    @property
    def holds_nothing(self) -> bool:
        """Whether text that is added to the answer would come out as it is, and alone."""
        held = self._blank or self._texts or self._events or self._arguments
        return not (held or self._after_call or self._has_stops)

    def reasoning(self, text: str) -> None:
        """Add to the thought; newlines at its end are held back."""
        kept = text.rstrip("\n")
        if kept:
            self._release_blank()
            self._texts.append(kept)
        if len(kept) < len(text):
            self._blank.append(text[len(kept) :])

    def content(self, text: str) -> None:
        """Add to the answer; white space at its end is held back."""
        kept = text.rstrip()
        if kept:
            self._release_blank()
            self._after_call = False
            self._add_content(kept)
        if len(kept) < len(text):
            self._blank.append(text[len(kept) :])

    def begin_thought(self) -> None:
        """Go over to a thought. Joined to an earlier one, it begins with the newline that that one ended with."""
        self._release_blank()
        if not self.thinking:
            self._texts.append(self._stop.flush())
        self._switch(thinking=True)
        if self._lost_newline:
            self._lost_newline = False
            self._blank.append("\n")

    def begin_answer(self) -> None:
        """Go over to the answer; the newline before the thought's end is the format's."""
        if self.thinking:
            blank = "".join(self._blank)
            self._blank.clear()
            self._lost_newline = bool(blank)
            if len(blank) > 1:
                self._texts.append(blank[:-1])
        self._switch(thinking=False)

    def begin_call(self, index: int, call_id: str, name: str) -> None:
        """Start a call; white space before it is dropped."""
        self._blank.clear()
        self._texts.append(self._stop.flush())
        self._flush()
        self._index = index
        self._events.append(CallStart(index, call_id, name))

    def arguments(self, text: str) -> None:
        """Add to the arguments of the call."""
        self._arguments.append(text)

    def end_call(self, *, whole: bool) -> None:
        """End the call; only a whole one is reported as finished."""
        self._flush()
        if whole:
            self._events.append(CallEnd(self._index))
        self._after_call = True

    def finish(self) -> None:
        """Release what is held back: the stream has ended."""
        if self._after_call and not self.thinking:
            self._blank.clear()
        self._release_blank()
        self._texts.append(self._stop.flush())

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        self._flush()
        events, self._events = self._events, []
        return events

    def _add_content(self, text: str) -> None:
        if not self.stopped:
            self._texts.append(self._stop.feed(text))
            self.stopped = self._stop.matched is not None

    def _release_blank(self) -> None:
        """Pass on the white space that was held back."""
        if self._blank:
            text = "".join(self._blank)
            self._blank.clear()
            if self.thinking:
                self._texts.append(text)
            else:
                self._add_content(text)

    def _switch(self, *, thinking: bool) -> None:
        if thinking is not self.thinking:
            self._flush()
            self.thinking = thinking

    def _flush(self) -> None:
        """Make events of the text and arguments in hand; never both are there."""
        if self._texts:
            text = "".join(self._texts)
            self._texts.clear()
            if text:
                self._events.append(ReasoningDelta(text) if self.thinking else ContentDelta(text))
        if self._arguments:
            self._events.append(CallDelta(self._index, "".join(self._arguments)))
            self._arguments.clear()
