"""The head of a tool call, between the opening marker and the first brace, in all the ways models write it."""

from __future__ import annotations

import re
from collections.abc import Container

LONGEST_HEAD = 300
"""Most characters that are waited for a brace."""

_HEAD = re.compile(r"\s*(?:call)?\s*:?\s*([^\s{}()\[\]\"'<>:,]+)\s*\Z")
_NAMED = re.compile(r"\s*(?:call\s*:|:)")
_OPENER = re.compile(r"[{(]")


def find_opener(text: str) -> int:
    """Return the position of the sign that opens the arguments, -1 if there is none."""
    match = _OPENER.search(text)
    return -1 if match is None else match.start()


def call_name(head: str, declared: Container[str], opener: str = "") -> str | None:
    """Return the name of ``call:NAME`` or ``:NAME``; of ``NAME`` alone if a brace follows or such a tool is declared.

    None when the head names nothing.
    """
    match = _HEAD.match(head)
    if match is None or not (opener == "{" or _NAMED.match(head) or match.group(1) in declared):
        return None
    return match.group(1)
