"""Reading strings: between delimiter tokens, where everything is literal, and in JSON's or Python's quotes.

Each function reads from a position and returns the next one; it reads at least one character or changes the state.
"""

from __future__ import annotations

import json
import re

from api.gemma4.argument_state import TAIL, ArgumentState, State
from api.gemma4.literals import json_string

_PLAIN = {mark: re.compile(rf"[^{mark}\\]+") for mark in "\"'"}


def read_string(reader: ArgumentState, chunk: str, start: int) -> int:
    """Take everything; hold closing signs at the end, which are structure if the closing delimiter is left out."""
    text = chunk[start:] if start else chunk
    kept = text.rstrip(TAIL)
    if kept:
        reader.flush_held()
        reader.out.append(json_string(kept)[1:-1])
    if len(kept) < len(text):
        reader.held.append(text[len(kept) :])
    return len(chunk)


def quote_in_string(reader: ArgumentState) -> None:
    """A delimiter closes the string, if structure follows."""
    reader.flush_held()
    reader.state = State.AFTER_STRING


def read_after_string(reader: ArgumentState, chunk: str, start: int) -> int:
    """After a delimiter: structure ends the string, anything else means that the delimiter stood inside it."""
    end = start
    while end < len(chunk) and chunk[end].isspace():
        end += 1
    reader.parts.append(chunk[start:end])
    if end == len(chunk):
        return end
    blank = reader.take_parts()
    if reader.ends_value(chunk[end]):
        reader.out.append('"')
        reader.state = State.AFTER_VALUE
        return end
    reader.out.append(json_string(f'"{blank}')[1:-1])
    reader.state = State.STRING
    return end


def quote_after_string(reader: ArgumentState) -> None:
    """A second delimiter in a row stands inside the string."""
    reader.out.append(json_string(f'"{reader.take_parts()}')[1:-1])
    reader.state = State.STRING


def read_quoted(reader: ArgumentState, chunk: str, start: int) -> int:
    """Read inside ordinary quotes: escapes stand for characters."""
    if reader.parts and reader.parts[-1] == "\\":
        reader.parts[-1] += chunk[start]
        return start + 1
    match = _PLAIN[reader.mark].match(chunk, start)
    if match is not None:
        reader.parts.append(match.group())
        return match.end()
    if chunk[start] == "\\":
        reader.parts.append("\\")
    else:
        reader.held.clear()
        reader.state = State.AFTER_QUOTED
    return start + 1


def read_after_quoted(reader: ArgumentState, chunk: str, start: int) -> int:
    """After the closing quote: structure proves it, anything else means that it stood inside."""
    sign = chunk[start]
    if sign.isspace():
        reader.held.append(sign)
        return start + 1
    if (sign in ":=" and reader.quoted_is_key) or reader.ends_value(sign):
        reader.held.clear()
        value = unescape(reader.take_parts(), reader.mark)
        if reader.quoted_is_key:
            reader.key = value
            reader.state = State.AFTER_KEY
        else:
            reader.out.append(json_string(value))
            reader.state = State.AFTER_VALUE
        return start
    reader.parts += (reader.mark, *reader.held)
    reader.held.clear()
    reader.state = State.QUOTED
    return start


def quote_in_quoted(reader: ArgumentState) -> None:
    """A delimiter token right after an ordinary quote is the real opening; later it is the real end."""
    text = reader.take_parts()
    if reader.quoted_is_key:
        reader.key = text
        reader.state = State.AFTER_KEY if text else State.DELIMITED_KEY
    elif text:
        reader.open_string(text)
    else:
        reader.out.append('"')
        reader.state = State.STRING


def end_string(reader: ArgumentState) -> None:
    """End a string whose closing delimiter is missing: closing signs at its end are the structure's."""
    held = "".join(reader.held)
    reader.held.clear()
    reader.out += (json_string(reader.without_closers(held))[1:-1], '"')


def end_quoted(reader: ArgumentState) -> None:
    """End a quoted string or key at the end of the call; an open one gives up its closing signs."""
    text = reader.take_parts()
    reader.held.clear()
    if reader.state is State.QUOTED:
        kept = text.rstrip(TAIL)
        text = kept + reader.without_closers(text[len(kept) :])
    value = unescape(text, reader.mark)
    if reader.quoted_is_key:
        reader.parts.append(value)
        reader.end_valueless_key()
    else:
        reader.out.append(json_string(value))


def unescape(text: str, mark: str) -> str:
    """Decode the escapes of a quoted string; what is no JSON is kept as it stands."""
    if "\\" not in text:
        return text
    body = text if mark == '"' else text.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{body}"', strict=False))
    except ValueError:
        return text
