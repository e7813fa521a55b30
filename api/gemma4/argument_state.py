"""What is known while a tool call's arguments are read: open containers, text in hand, and the JSON written so far.

Operations that several reading states share are here; the states themselves are ``argument_keys``,
``argument_values`` and ``argument_strings``, joined by ``arguments``.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from api.gemma4.literals import SchemaView, bare_to_json, json_string

MAX_DEPTH = 60
"""Deepest nesting that is read as structure; what is deeper is kept as text."""

TAIL = "}]) \t\r\n"
"""Signs that may belong to the structure when they end a string whose closing delimiter was left out."""


class State(Enum):
    """What the next character belongs to."""

    KEY = auto()
    DELIMITED_KEY = auto()
    AFTER_KEY = auto()
    VALUE = auto()
    BARE = auto()
    LOOK = auto()
    STRING = auto()
    AFTER_STRING = auto()
    QUOTED = auto()
    AFTER_QUOTED = auto()
    AFTER_VALUE = auto()
    CLOSED = auto()


class Container:
    """An open object or array: what the schema says of it, and how many members were begun."""

    __slots__ = ("count", "is_object", "schema")

    def __init__(self, schema: object, *, is_object: bool) -> None:
        """Open an object or an array."""
        self.schema = schema
        self.is_object = is_object
        self.count = 0


class Signs:
    """Where scans stop, and what closes the outermost object, for one kind of opening sign."""

    __slots__ = ("bare_end", "closers", "key_end", "look_end")

    def __init__(self, *, paren: bool) -> None:
        """Know the signs of ``{...}``, or of a call written as ``name(key=value)``."""
        self.key_end = re.compile(r"[:=,}{)\"']" if paren else r"[:,}{\"']")
        self.bare_end = re.compile(r"[,{}\[\]()]" if paren else r"[,{}\[\]]")
        self.look_end = re.compile(r"[:=,{}\[\]\"')]" if paren else r"[:,{}\[\]\"']")
        self.closers = frozenset("})" if paren else "}")


_BRACES, _PARENS = Signs(paren=False), Signs(paren=True)


class ArgumentState:
    """The reader's memory.

    ``parts`` is the text of the key or value in hand, ``look`` what follows a comma that may be part of it, ``held``
    the end of a string that may be structure, ``place`` the schema of the value in hand.
    """

    def __init__(self, schema: object, *, opener: str) -> None:
        """Start inside the outermost object."""
        self.view = SchemaView(schema)
        self.stack = [Container(self.view.root, is_object=True)]
        self.signs = _PARENS if opener == "(" else _BRACES
        self.out: list[str] = ["{"]
        self.parts: list[str] = []
        self.held: list[str] = []
        self.look: list[str] = []
        self.nesting = 0
        self.place: object = None
        self.key = ""
        self.mark = '"'
        self.quoted_is_key = False
        self.state = State.KEY

    def take_parts(self) -> str:
        """Return the text in hand and forget it."""
        text = "".join(self.parts)
        self.parts.clear()
        return text

    def has_parts(self) -> bool:
        """Tell whether there is text in hand besides white space."""
        return any(part.strip() for part in self.parts)

    def types(self) -> frozenset[str]:
        """Return the types that the value in hand may have."""
        return self.view.types(self.place)

    def ends_value(self, sign: str) -> bool:
        """Tell whether a sign after a string can only be structure."""
        return sign in {",", "]"} or sign in self.signs.closers

    def write_bare(self) -> None:
        """Write the undelimited value in hand."""
        self.out.append(bare_to_json(self.take_parts(), self.types()))

    def begin_member(self) -> None:
        """Write the comma before a member or item, unless it is the first."""
        container = self.stack[-1]
        if container.count:
            self.out.append(",")
        container.count += 1

    def open_member(self) -> None:
        """Write a key and wait for its value."""
        self.begin_member()
        self.out += (json_string(self.key), ":")
        self.place = self.view.member(self.stack[-1].schema, self.key)
        self.state = State.VALUE

    def end_valueless_key(self) -> None:
        """Keep the key in hand, which has no value, as null."""
        key = self.take_parts().strip()
        if key:
            self.begin_member()
            self.out += (json_string(key), ":null")

    def begin_value(self) -> None:
        """Begin an array's item; an object's member has begun with its key."""
        container = self.stack[-1]
        if not container.is_object:
            self.place = self.view.item(container.schema, container.count)
            self.begin_member()

    def flush_held(self) -> None:
        """Make the held end of a string part of it."""
        if self.held:
            self.out.append(json_string("".join(self.held))[1:-1])
            self.held.clear()

    def fold_look(self) -> None:
        """Make what was looked at after a comma part of the value."""
        if self.look:
            self.parts += (",", *self.look)
            self.look.clear()

    def open_string(self, text: str) -> None:
        """Turn undelimited text into a string that a delimiter has just closed."""
        self.out += ('"', json_string(text.lstrip())[1:-1])
        self.state = State.AFTER_STRING

    def open_quoted(self, mark: str, *, is_key: bool) -> None:
        """Enter JSON's or Python's quotes."""
        self.parts.clear()
        self.mark = mark
        self.quoted_is_key = is_key
        self.state = State.QUOTED

    def close(self, *, is_object: bool) -> None:
        """Close the innermost container of a kind, and those inside it that were left open; else ignore the sign."""
        self.state = State.AFTER_VALUE
        if not any(container.is_object is is_object for container in self.stack):
            return
        while len(self.stack) > 1:
            container = self.stack.pop()
            self.out.append("}" if container.is_object else "]")
            if container.is_object is is_object:
                return
        self.state = State.CLOSED

    def without_closers(self, tail: str) -> str:
        """Take off the end of a string the closing signs that the open containers need, outermost last."""
        for container in self.stack:
            stripped = tail.rstrip()
            if not stripped.endswith("}" if container.is_object else "]"):
                break
            tail = stripped[:-1]
        return tail
