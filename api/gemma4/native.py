"""Values in Gemma 4's own notation: bare keys sorted without regard to case, strings between delimiter tokens.

Strings are written raw: the notation has no escapes, because the delimiter is a token that text cannot spell. The
reader of this notation is ``api.gemma4.arguments``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_BARE_KEY = re.compile(r"[^\s:,{}\[\]()\"'<>=](?:[^:,{}\[\]()\"'<>=\n]*[^\s:,{}\[\]()\"'<>=])?\Z")


def sorted_items(value: Mapping[str, object]) -> list[tuple[str, object]]:
    """Return a mapping's items in the order in which the model family's template prints them."""
    return sorted(value.items(), key=_fold)


def _fold(item: tuple[str, object]) -> str:
    return item[0].lower()


def is_bare_key(key: str) -> bool:
    """Tell whether a key can stand without delimiters and be read back."""
    return _BARE_KEY.match(key) is not None


def native_text(value: object, quote: str, *, quote_keys: bool = False) -> str:
    """Write any JSON value as one text in which ``quote`` stands for the delimiter: what ``NativeWriter`` writes, fast.

    The caller has bounded its depth, and has made sure that ``quote`` occurs nowhere in it.
    """
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        members = [
            f"{f'{quote}{key}{quote}' if quote_keys or not is_bare_key(key) else key}:"
            f"{native_text(item, quote, quote_keys=quote_keys)}"
            for key, item in sorted_items(value)
        ]
        return f"{{{','.join(members)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join([native_text(item, quote, quote_keys=quote_keys) for item in value])}]"
    return str(value)


class NativeWriter:
    """Appends values to a list of texts and token ids."""

    __slots__ = ("_quote", "out")

    def __init__(self, quote: int, out: list[str | int] | None = None) -> None:
        """Write to ``out`` with ``quote`` as the id of the string delimiter."""
        self._quote = quote
        self.out: list[str | int] = [] if out is None else out

    def text(self, *texts: str) -> None:
        """Write structure."""
        self.out += texts

    def string(self, value: str) -> None:
        """Write a delimited string."""
        self.out += (self._quote, value, self._quote)

    def strings(self, values: Iterable[str]) -> None:
        """Write a list of delimited strings."""
        self.out.append("[")
        for number, value in enumerate(values):
            if number:
                self.out.append(",")
            self.string(value)
        self.out.append("]")

    def members(self, value: Mapping[str, object], *, quote_keys: bool = False) -> None:
        """Write the members of an object without its braces."""
        for number, (key, item) in enumerate(sorted_items(value)):
            if number:
                self.out.append(",")
            if quote_keys or not is_bare_key(key):
                self.string(key)
                self.out.append(":")
            else:
                self.out += (key, ":")
            self.value(item, quote_keys=quote_keys)

    def value(self, value: object, *, quote_keys: bool = False) -> None:
        """Write any JSON value. The caller has bounded its depth."""
        if isinstance(value, str):
            self.string(value)
        elif value is None:
            self.out.append("null")
        elif isinstance(value, bool):
            self.out.append("true" if value else "false")
        elif isinstance(value, Mapping):
            self.out.append("{")
            self.members(value, quote_keys=quote_keys)
            self.out.append("}")
        elif isinstance(value, list | tuple):
            self.out.append("[")
            for number, item in enumerate(value):
                if number:
                    self.out.append(",")
                self.value(item, quote_keys=quote_keys)
            self.out.append("]")
        else:
            self.out.append(str(value))
