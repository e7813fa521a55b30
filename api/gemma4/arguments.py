"""The arguments of a tool call, from Gemma 4's notation to JSON text that grows as the model writes.

A state machine that never fails and never looks back: what the model leaves out (delimiters, braces, brackets) is
supplied, other quotes and Python's words are understood, and anything else is kept as a string. The writer of the
notation is ``api.gemma4.native``; which token is which is ``api.gemma4.parse``'s.
"""

from __future__ import annotations

from collections.abc import Callable

from api.gemma4 import argument_keys as keys
from api.gemma4 import argument_strings as strings
from api.gemma4 import argument_values as values
from api.gemma4.argument_state import ArgumentState, State
from api.gemma4.literals import bare_to_json, json_string

_READERS: dict[State, Callable[[ArgumentState, str, int], int]] = {
    State.KEY: keys.read_key,
    State.DELIMITED_KEY: keys.read_delimited_key,
    State.AFTER_KEY: keys.read_after_key,
    State.VALUE: values.read_value,
    State.BARE: values.read_bare,
    State.LOOK: values.read_look,
    State.STRING: strings.read_string,
    State.AFTER_STRING: strings.read_after_string,
    State.QUOTED: strings.read_quoted,
    State.AFTER_QUOTED: strings.read_after_quoted,
    State.AFTER_VALUE: values.read_after_value,
    State.CLOSED: values.read_closed,
}
_QUOTES: dict[State, Callable[[ArgumentState], None]] = {
    State.KEY: keys.quote_in_key,
    State.DELIMITED_KEY: keys.quote_in_delimited_key,
    State.VALUE: values.quote_in_value,
    State.BARE: values.quote_in_bare,
    State.LOOK: values.quote_in_look,
    State.STRING: strings.quote_in_string,
    State.AFTER_STRING: strings.quote_after_string,
    State.QUOTED: strings.quote_in_quoted,
}
"""What a delimiter token means; elsewhere it is a slip and means nothing."""


class ArgumentReader:
    """Reads what stands between ``call:NAME`` + brace and the closing token. Output is taken with ``take``."""

    def __init__(self, schema: object, *, opener: str = "{") -> None:
        """Start after the opening brace (or parenthesis, a slip that is understood)."""
        self._memory = ArgumentState(schema, opener=opener)

    @property
    def in_string(self) -> bool:
        """Whether a delimiter token has opened a string or key, in which every other token is literal."""
        return self._memory.state in {State.STRING, State.DELIMITED_KEY}

    def take(self) -> str:
        """Return the JSON text that is new since the last call."""
        out = self._memory.out
        text = out[0] if len(out) == 1 else "".join(out)
        out.clear()
        return text

    def text(self, chunk: str) -> str:
        """Read ordinary text; return the rest that no longer belongs to the call (empty: all was read)."""
        memory = self._memory
        position = 0
        while position < len(chunk):
            closed = memory.state is State.CLOSED
            position = _READERS[memory.state](memory, chunk, position)
            if closed and memory.state is State.CLOSED:
                return chunk[position:]
        return ""

    def quote(self) -> None:
        """Read one delimiter token."""
        handler = _QUOTES.get(self._memory.state)
        if handler is not None:
            handler(self._memory)

    def finish(self) -> None:
        """Close everything that is still open: the model has ended its call."""
        memory = self._memory
        self._end_pending()
        while memory.stack:
            memory.out.append("}" if memory.stack.pop().is_object else "]")

    def cut(self) -> bool:
        """Write out what is pending without closing it: the output was cut. Return whether the call was whole."""
        memory = self._memory
        if memory.state is State.CLOSED:
            memory.out.append("}")
            return True
        memory.fold_look()
        if memory.state is State.STRING:
            memory.flush_held()
        elif memory.state is State.AFTER_KEY:
            memory.begin_member()
            memory.out.append(json_string(memory.key))
        elif memory.has_parts():
            pending = memory.take_parts()
            if memory.state in {State.KEY, State.DELIMITED_KEY}:
                memory.begin_member()
                memory.out.append(json_string(pending.strip())[:-1])
            else:
                value = bare_to_json(pending, memory.types())
                memory.out.append(value[:-1] if value.startswith('"') else value)
        return False

    def _end_pending(self) -> None:
        """End whatever value or key is in hand."""
        memory = self._memory
        state = memory.state
        if state is State.STRING:
            strings.end_string(memory)
        elif state is State.AFTER_STRING:
            memory.out.append('"')
        elif state in {State.KEY, State.DELIMITED_KEY}:
            memory.end_valueless_key()
        elif state is State.AFTER_KEY:
            memory.parts.append(memory.key)
            memory.end_valueless_key()
        elif state is State.VALUE:
            if memory.stack[-1].is_object:
                memory.out.append(bare_to_json("", memory.types()))
        elif state in {State.BARE, State.LOOK}:
            memory.fold_look()
            memory.write_bare()
        elif state in {State.QUOTED, State.AFTER_QUOTED}:
            strings.end_quoted(memory)
