"""Reading values that are not strings between delimiters: containers, literals, and strings that lost their delimiter.

Each function reads from a position and returns the next one; it reads at least one character or changes the state.
"""

from __future__ import annotations

from api.gemma4.argument_state import MAX_DEPTH, TAIL, ArgumentState, Container, State
from api.gemma4.literals import bare_to_json, is_literal

_OPENERS = "{[("
_MOST_LITERAL_PIECES = 64


def read_value(reader: ArgumentState, chunk: str, start: int) -> int:
    """Find out from its first character what a value is."""
    sign = chunk[start]
    if sign.isspace():
        return start + 1
    if sign in "{[" and len(reader.stack) < MAX_DEPTH:
        reader.begin_value()
        reader.out.append(sign)
        reader.stack.append(Container(reader.place, is_object=sign == "{"))
        reader.state = State.KEY if sign == "{" else State.VALUE
        return start + 1
    if sign in "\"'":
        reader.begin_value()
        reader.open_quoted(sign, is_key=False)
        return start + 1
    if reader.ends_value(sign):
        return _read_missing_value(reader, sign, start)
    reader.begin_value()
    reader.nesting = 0
    reader.state = State.BARE
    return start


def _read_missing_value(reader: ArgumentState, sign: str, start: int) -> int:
    """Supply a member's missing value; in an array, ignore a comma too many."""
    if reader.stack[-1].is_object:
        reader.out.append(bare_to_json("", reader.types()))
    elif sign == ",":
        return start + 1
    reader.state = State.AFTER_VALUE
    return start


def read_bare(reader: ArgumentState, chunk: str, start: int) -> int:
    """Read an undelimited value; brackets inside it belong to it."""
    match = reader.signs.bare_end.search(chunk, start)
    if match is None:
        reader.parts.append(chunk[start:])
        return len(chunk)
    end, sign = match.start(), match.group()
    reader.parts.append(chunk[start:end])
    if sign in _OPENERS:
        reader.nesting += 1
    elif reader.nesting and sign != ",":
        reader.nesting -= 1
    elif not reader.nesting:
        return _end_bare(reader, sign, end)
    reader.parts.append(sign)
    return end + 1


def _end_bare(reader: ArgumentState, sign: str, end: int) -> int:
    """Handle a sign that may end an undelimited value: a comma in an object needs a look at what follows."""
    # Joining what is in hand is worth it only while it is short, as a literal is.
    is_short = len(reader.parts) <= _MOST_LITERAL_PIECES
    ends = (
        sign != ","
        or not reader.stack[-1].is_object
        or (is_short and is_literal("".join(reader.parts), reader.types()))
    )
    if not ends:
        reader.state = State.LOOK
        return end + 1
    reader.write_bare()
    reader.state = State.AFTER_VALUE
    return end


def read_look(reader: ArgumentState, chunk: str, start: int) -> int:
    """After a comma: a key and a colon mean a new member, anything else that the comma was part of the value."""
    match = reader.signs.look_end.search(chunk, start)
    if match is None:
        reader.look.append(chunk[start:])
        return len(chunk)
    end, sign = match.start(), match.group()
    reader.look.append(chunk[start:end])
    blank = not any(part.strip() for part in reader.look)
    if sign in ":=" and not blank:
        reader.key = "".join(reader.look).strip()
        reader.look.clear()
        reader.write_bare()
        reader.open_member()
        return end + 1
    if blank and sign in "\"'":
        reader.look.clear()
        reader.write_bare()
        reader.state = State.KEY
        return end
    if blank and sign in reader.signs.closers:
        reader.look.clear()
    return _read_comma_within(reader, sign, end)


def _read_comma_within(reader: ArgumentState, sign: str, end: int) -> int:
    """Go on with a value that the comma turned out to be part of."""
    reader.fold_look()
    if sign == ",":
        return end + 1
    reader.state = State.BARE
    if sign in "\"':=":
        reader.parts.append(sign)
        return end + 1
    return end


def read_after_value(reader: ArgumentState, chunk: str, start: int) -> int:
    """Expect a comma or a closing sign; a missing comma is supplied."""
    sign = chunk[start]
    if sign.isspace():
        return start + 1
    container = reader.stack[-1]
    if sign == "]" or sign in reader.signs.closers:
        reader.close(is_object=sign != "]")
        return start + 1
    reader.state = State.KEY if container.is_object else State.VALUE
    return start + (sign == ",")


def read_closed(reader: ArgumentState, chunk: str, start: int) -> int:
    """After the last brace: more closing signs are swallowed, a comma means that the brace was premature."""
    while start < len(chunk) and chunk[start] in TAIL:
        start += 1
    if start < len(chunk) and chunk[start] == ",":
        reader.state = State.KEY
        return start + 1
    return start


def quote_in_value(reader: ArgumentState) -> None:
    """A delimiter opens a string."""
    reader.begin_value()
    reader.out.append('"')
    reader.state = State.STRING


def quote_in_bare(reader: ArgumentState) -> None:
    """A delimiter closes a string whose opening was left out."""
    reader.open_string(reader.take_parts())


def quote_in_look(reader: ArgumentState) -> None:
    """A delimiter right after a comma opens a key; later it closes a string whose opening was left out."""
    if any(part.strip() for part in reader.look):
        reader.fold_look()
        reader.open_string(reader.take_parts())
        return
    reader.look.clear()
    reader.write_bare()
    reader.state = State.DELIMITED_KEY
