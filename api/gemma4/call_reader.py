"""One tool call at a time: its head, its arguments, and where it ends when the model leaves something out.

A close marker inside a string is literal if a string delimiter follows some time, and the call's end if none does;
until that is clear, what follows is kept. The arguments' notation is ``api.gemma4.arguments``', the answer around the
calls is ``api.gemma4.parse``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from api.gemma4.arguments import ArgumentReader
from api.gemma4.call_head import LONGEST_HEAD, call_name, find_opener
from api.gemma4.event_sink import EventSink
from api.gemma4.events import CallStart
from api.gemma4.prompt import OpenCall


class CallReader:
    """Reads calls into a sink. Methods that may end a call return the text that no longer belongs to it."""

    def __init__(self, sink: EventSink, schemas: Mapping[str, object], new_call_id: Callable[[], str]) -> None:
        """Know the parameter schemas of the declared tools by name."""
        self._sink = sink
        self._schemas = schemas
        self._new_call_id = new_call_id
        self._head: list[str] = []
        self._head_length = 0
        self._arguments: ArgumentReader | None = None
        self._suspended: list[str] | None = None
        self._skip = 0
        self._count = 0
        self.active = False

    def open(self) -> None:
        """Begin a call right after its opening marker."""
        self._head.clear()
        self._head_length = 0
        self.active = True

    def open_named(self, name: str) -> None:
        """Begin a call right after the brace that follows its name."""
        self.active = True
        self._begin(name, "{")

    def resume(self, open_call: OpenCall, read: Callable[[OpenCall], None]) -> None:
        """Take up a call that the prompt holds: ``read`` feeds it, and only what is new is passed on.

        The client has the call's JSON up to a length that may cut a value in two.
        """
        given = iter((open_call.call_id,) if open_call.call_id is not None else ())
        new_call_id = self._new_call_id
        self._new_call_id = lambda: next(given, None) or new_call_id()
        self._skip = open_call.json_length
        self.open()
        read(open_call)
        started = [event for event in self._sink.take() if isinstance(event, CallStart)]
        for event in started[-1:]:
            self._sink.begin_call(event.index, event.call_id, event.name)

    def text(self, text: str) -> str:
        """Read ordinary text."""
        if self._suspended is not None:
            self._suspended.append(text)
            return ""
        if self._arguments is None:
            return self._read_head(text)
        rest = self._arguments.text(text)
        self._pass_on()
        return self.end(cut=False) + rest if rest else ""

    def quote(self, close_marker: str) -> None:
        """Read a string delimiter; it proves that a close marker before it was literal."""
        if self._arguments is None:
            self._head.append('"')
            return
        if self._suspended is not None:
            self._arguments.text(close_marker + "".join(self._suspended))
            self._suspended = None
        self._arguments.quote()
        self._pass_on()

    def take_literal(self, marker: str) -> bool:
        """Take a marker as text if a delimited string is open; return whether it was taken."""
        if self._suspended is not None:
            self._suspended.append(marker)
            return True
        if self._arguments is not None and self._arguments.in_string:
            self._arguments.text(marker)
            self._pass_on()
            return True
        return False

    def follows_close(self) -> bool:
        """Tell whether the last thing read was a close marker inside a string."""
        return self._suspended is not None and not self._suspended

    def close(self, marker: str) -> str:
        """Read the close marker."""
        if self._arguments is not None and self._suspended is None and self._arguments.in_string:
            self._suspended = []
            return ""
        if self._suspended is not None:
            self._suspended.append(marker)
            return ""
        return self.end(cut=False)

    def end(self, *, cut: bool) -> str:
        """End the call; ``cut`` leaves it unfinished."""
        self.active = False
        if self._arguments is None:
            head = "".join(self._head)
            name = None if cut else call_name(head, self._schemas)
            if name is None:
                return head
            self._begin(name, "{")
        suspended, self._suspended = self._suspended, None
        whole = self._finish_arguments(cut=cut and suspended is None)
        self._sink.end_call(whole=whole)
        self._count += 1
        self._arguments = None
        return "".join(suspended or ())

    def _read_head(self, text: str) -> str:
        """Read up to the brace that ends the head."""
        end = find_opener(text)
        self._head.append(text if end < 0 else text[:end])
        self._head_length += len(text)
        head = "".join(self._head) if end >= 0 or self._head_length > LONGEST_HEAD else ""
        if end >= 0 and (name := call_name(head, self._schemas, text[end])) is not None:
            self._begin(name, text[end])
            return self.text(text[end + 1 :]) if text[end + 1 :] else ""
        if head or end >= 0:
            self.active = False
            return head + (text[end:] if end >= 0 else "")
        return ""

    def _begin(self, name: str, opener: str) -> None:
        self._sink.begin_call(self._count, self._new_call_id(), name)
        self._arguments = ArgumentReader(self._schemas.get(name), opener=opener)
        self._pass_on()

    def _finish_arguments(self, *, cut: bool) -> bool:
        """End the arguments; return whether they are whole."""
        if self._arguments is None:
            return False
        whole = True
        if cut:
            whole = self._arguments.cut()
        else:
            self._arguments.finish()
        self._pass_on()
        return whole

    def _pass_on(self) -> None:
        """Pass on new arguments; the part that the client already has is skipped."""
        text = self._arguments.take() if self._arguments is not None else ""
        if self._skip:
            skipped = min(self._skip, len(text))
            self._skip -= skipped
            text = text[skipped:]
        if text:
            self._sink.arguments(text)
