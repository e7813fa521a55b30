"""Thoughts and calls in an assistant message's own text, and where a final one stops: text, thought or cut call.

A client may hand back a cut call as it received it (JSON text that ends anywhere), or as markup spelled in the
content. Both become what the model itself had written so far, so that it can go on as if it had never stopped.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from api.chat.errors import ArgumentsError
from api.chat.request import AssistantMessage, ContentPart, TextPart, ToolCall
from api.gemma4.tokenizer import Gemma4Tokenizer

_CHANNEL_OPEN, _CHANNEL_CLOSE = "<|channel>", "<channel|>"
_CALL_OPEN, _CALL_CLOSE = "<|tool_call>", "<tool_call|>"
_THOUGHT = re.compile(r"<\|channel>.*?(?:<channel\|>|\Z)|<channel\|>", re.DOTALL)
_LABEL = re.compile(r"\Athought\n?")
_PIECE = re.compile(r'\s+|"(?:[^"\\]+|\\.)*(?:"|\\)?|[^\s"]', re.DOTALL)
_CUT_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(?:\\u[0-9a-fA-F]{0,3}|\\u[dD][89abAB][0-9a-fA-F]{2}|\\)\Z")


def split_open_markup(message: AssistantMessage) -> tuple[str, str | None, str | None]:
    """Split a final message into its text, the thought that is still open, and the spelled call that is still open."""
    content = message.content or ""
    text = content if isinstance(content, str) else "".join(p.text for p in content if isinstance(p, TextPart))
    if not text and not message.tool_calls and message.reasoning:
        return "", message.reasoning, None
    channel = text.rfind(_CHANNEL_OPEN)
    if channel > text.rfind(_CHANNEL_CLOSE):
        return text[:channel], _LABEL.sub("", text[channel + len(_CHANNEL_OPEN) :]), None
    call = text.rfind(_CALL_OPEN)
    if call > text.rfind(_CALL_CLOSE):
        return text[:call], None, text[call + len(_CALL_OPEN) :]
    return text, None, None


def split_shown(message: AssistantMessage) -> tuple[tuple[ContentPart, ...], AssistantMessage]:
    """Split off what a final message holds up to its last picture; the rest is text that may be gone on with."""
    content = message.content if isinstance(message.content, tuple) else ()
    end = max((index + 1 for index, part in enumerate(content) if not isinstance(part, TextPart)), default=0)
    return content[:end], replace(message, content=content[end:]) if end else message


def strip_thoughts(text: str) -> str:
    """Remove spelled thoughts, and stray close markers, from an earlier answer."""
    return _THOUGHT.sub("", text) if "channel" in text else text


def open_call_segments(
    call: ToolCall | None, call_text: str | None, tokenizer: Gemma4Tokenizer, *, param: str
) -> tuple[list[str | int], int] | None:
    """Return what the model had written of a cut call after its opening piece, and how much JSON the client has of it.

    The length is that of compact JSON; 0 for a call that was spelled in the content.

    Raises:
        ArgumentsError: when the JSON stops within an escape, which cannot be told from what follows.
    """
    quote = tokenizer.special.quote
    if call is not None and call.open_arguments is not None:
        if _ends_within_escape(call.open_arguments):
            raise ArgumentsError("the arguments stop within an escape sequence", param=param)
        segments, length = _native_prefix(call.open_arguments, quote)
        return ["call:", call.name, *segments], length
    if call_text is None:
        return None
    spelled = call_text.split(tokenizer.name(quote) or "")
    segments = [spelled[0]]
    for text in spelled[1:]:
        segments += (quote, text)
    return segments, 0


def _native_prefix(text: str, quote: int) -> tuple[list[str | int], int]:
    """Translate JSON that may end anywhere: keys bare, strings delimited, white space dropped."""
    out: list[str | int] = []
    length = 0
    nesting: list[str] = []
    expects_key = False
    for match in _PIECE.finditer(text):
        piece = match.group()
        if piece.isspace():
            continue
        if piece[0] != '"':
            length += 1
            out.append(piece)
            if piece in "{[":
                nesting.append(piece)
            elif piece in "}]" and nesting:
                nesting.pop()
            expects_key = piece in "{," and nesting[-1:] == ["{"]
            continue
        closed = _is_closed(piece)
        value = _decode_prefix(piece, closed=closed)
        length += len(json.dumps(value, ensure_ascii=False)) - (not closed)
        if expects_key:
            out.append(value)
        else:
            out += (quote, value, quote) if closed else (quote, value)
        expects_key = False
    return out, length


def _is_closed(piece: str) -> bool:
    """Tell whether a string literal has its closing quote (an escaped one does not close)."""
    body = piece[1:-1]
    return len(piece) > 1 and piece.endswith('"') and (len(body) - len(body.rstrip("\\"))) % 2 == 0


def _decode_prefix(piece: str, *, closed: bool) -> str:
    """Decode a string literal, which may lack its end."""
    body = piece[1:-1] if closed else piece[1:]
    try:
        return str(json.loads(f'"{body}"', strict=False))
    except ValueError:
        return body


def _ends_within_escape(text: str) -> bool:
    """Tell whether the last string is open and stops in the middle of an escape."""
    pieces = _PIECE.findall(text)
    return (
        bool(pieces)
        and pieces[-1].startswith('"')
        and not _is_closed(pieces[-1])
        and bool(_CUT_ESCAPE.search(pieces[-1]))
    )
