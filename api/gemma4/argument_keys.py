"""Reading keys: bare up to the colon, between delimiter tokens, or in ordinary quotes.

Each function reads from a position and returns the next one; it reads at least one character or changes the state.
"""

from __future__ import annotations

from api.gemma4.argument_state import ArgumentState, State


def read_key(reader: ArgumentState, chunk: str, start: int) -> int:
    """Read a bare key, or find out that there is none."""
    match = reader.signs.key_end.search(chunk, start)
    if match is None:
        reader.parts.append(chunk[start:])
        return len(chunk)
    end, sign = match.start(), match.group()
    reader.parts.append(chunk[start:end])
    if sign in "\"'":
        if reader.has_parts():
            reader.parts.append(sign)
        else:
            reader.open_quoted(sign, is_key=True)
    elif sign in ":=":
        reader.key = reader.take_parts().strip()
        reader.open_member()
    elif sign == "{":
        # A doubled brace before a key is a slip; within a key it is part of it.
        if reader.has_parts():
            reader.parts.append(sign)
        else:
            reader.parts.clear()
    else:
        reader.end_valueless_key()
        if sign != ",":
            reader.close(is_object=True)
    return end + 1


def read_delimited_key(reader: ArgumentState, chunk: str, start: int) -> int:
    """Read everything up to the closing delimiter token."""
    reader.parts.append(chunk[start:])
    return len(chunk)


def read_after_key(reader: ArgumentState, chunk: str, start: int) -> int:
    """Expect the colon; without one the value may begin, or be missing."""
    sign = chunk[start]
    if sign.isspace():
        return start + 1
    if sign in ":=":
        reader.open_member()
        return start + 1
    if sign == "," or sign in reader.signs.closers:
        reader.parts.append(reader.key)
        reader.state = State.KEY
        return start
    reader.open_member()
    return start


def quote_in_key(reader: ArgumentState) -> None:
    """A delimiter before a key opens it; one after a key closes it (its opening was left out)."""
    key = reader.take_parts().strip()
    if key:
        reader.key = key
        reader.state = State.AFTER_KEY
    else:
        reader.state = State.DELIMITED_KEY


def quote_in_delimited_key(reader: ArgumentState) -> None:
    """A delimiter closes the key."""
    reader.key = reader.take_parts()
    reader.state = State.AFTER_KEY
