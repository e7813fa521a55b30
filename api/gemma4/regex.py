"""Regular expressions as JSON Schema and callers write them, to the ones that grammars take.

Python's own parser reads the pattern and a printer writes the tree again, so nothing of the caller's text reaches a
grammar unread. Look-around, back-references and anchors inside a pattern are no regular language or not supported:
they are refused.
"""

from __future__ import annotations

import re
import warnings
from re import _constants as c  # type: ignore[attr-defined]  # the parser's own names of its nodes
from re import _parser  # type: ignore[attr-defined]  # the one public way to a pattern's tree was removed in 3.11
from typing import Any

import pydantic_core
from pydantic_core import SchemaValidator, core_schema

from api.gemma4.errors import SchemaError

ANY_TEXT = "(?s:.)*"
_LONGEST = 4096
_MOST_REPEATS = 10_000
_CATEGORIES = {
    c.CATEGORY_DIGIT: "0-9",
    c.CATEGORY_WORD: "A-Za-z0-9_",
    c.CATEGORY_SPACE: r"\t\n\x0b\x0c\r \u{a0}\u{feff}\u{2028}\u{2029}",
}
_NEGATED = {
    c.CATEGORY_NOT_DIGIT: c.CATEGORY_DIGIT,
    c.CATEGORY_NOT_WORD: c.CATEGORY_WORD,
    c.CATEGORY_NOT_SPACE: c.CATEGORY_SPACE,
}
_REFUSED = {
    c.ASSERT: "look-around",
    c.ASSERT_NOT: "look-around",
    c.GROUPREF: "a back-reference",
    c.AT: "an anchor",
    c.SUBPATTERN: "flags",
}
_STARTS = (c.AT_BEGINNING, c.AT_BEGINNING_STRING)
_ENDS = (c.AT_END, c.AT_END_STRING)


def search_regex(pattern: str, *, param: str, keyword: str = "pattern") -> str:
    """Translate a pattern that may match anywhere to one that matches whole texts.

    Raises:
        SchemaError: naming the keyword, when the pattern is invalid, too large or not supported.
    """
    return _Translator(param, keyword).translate(pattern, search=True)


def full_regex(pattern: str, *, param: str, keyword: str) -> str:
    """Translate a pattern that must match the whole text.

    Raises:
        SchemaError: as ``search_regex``.
    """
    return _Translator(param, keyword).translate(pattern, search=False)


class WholeTexts:
    """The texts that a translated pattern matches as a whole, found in linear time, as Python's own engine would not.

    A caller's pattern could keep that one busy for ever.
    """

    def __init__(self, regex: str, *, param: str) -> None:
        """Compile what ``search_regex`` or ``full_regex`` has returned.

        Raises:
            SchemaError: it is too large.
        """
        try:
            self._validator = SchemaValidator(core_schema.str_schema(pattern=f"^(?:{regex})$", strict=True))
        except pydantic_core.SchemaError as error:
            raise SchemaError("`pattern` is too large to be applied to an enum", param=param) from error

    def has(self, text: str) -> bool:
        """Tell whether a text is one of them."""
        return bool(self._validator.isinstance_python(text))


class _Translator:
    """Prints the tree of one pattern."""

    def __init__(self, param: str, keyword: str) -> None:
        self._param = param
        self._keyword = keyword

    def translate(self, pattern: str, *, search: bool) -> str:
        """Parse and print."""
        if len(pattern) > _LONGEST:
            raise self._error(f"is longer than {_LONGEST} characters")
        # ECMAScript names groups and writes code points in its own way; both have an exact form in Python.
        pattern = re.sub(r"\(\?<(?![=!])", "(?P<", pattern)
        try:
            # What Python finds odd, such as a bracket within a class, is for nobody's log.
            with warnings.catch_warnings(action="ignore"):
                tree = _parser.parse(pattern, re.UNICODE)
            if tree.state.flags & (re.IGNORECASE | re.MULTILINE | re.VERBOSE | re.LOCALE):
                raise self._error("sets flags")
            return self._anchored(list(tree), dot_all=bool(tree.state.flags & re.DOTALL), search=search)
        except re.error as error:
            raise self._error(f"is not a regular expression: {error.msg}") from error
        except (RecursionError, OverflowError) as error:
            raise self._error("is too deep or repeats too often") from error

    def _anchored(self, items: list[Any], *, dot_all: bool, search: bool) -> str:
        """Print a whole pattern: anchors at its ends, or any text where they are missing."""
        if len(items) == 1 and items[0][0] is c.BRANCH:
            options = [self._anchored(list(option), dot_all=dot_all, search=search) for option in items[0][1][1]]
            return f"(?:{'|'.join(options)})"
        if len(items) == 1 and items[0][0] is c.SUBPATTERN:
            return self._anchored(list(items[0][1][3]), dot_all=dot_all, search=search)
        start = bool(items) and items[0] in [(c.AT, at) for at in _STARTS]
        items = items[1:] if start else items
        end = bool(items) and items[-1] in [(c.AT, at) for at in _ENDS]
        items = items[:-1] if end else items
        body = self._items(items, dot_all=dot_all)
        if not search:
            return body
        return f"{'' if start else ANY_TEXT}{body}{'' if end else ANY_TEXT}"

    def _items(self, items: Any, *, dot_all: bool) -> str:
        return "".join(self._item(operator, value, dot_all=dot_all) for operator, value in items)

    def _item(self, operator: Any, value: Any, *, dot_all: bool) -> str:
        """Print one node."""
        if operator in {c.LITERAL, c.NOT_LITERAL}:
            return _char(value) if operator is c.LITERAL else f"[^{_char(value)}]"
        if operator is c.ANY:
            return "(?s:.)" if dot_all else r"[^\n\r\u{2028}\u{2029}]"
        if operator is c.IN:
            return self._set(value)
        if operator in {c.MAX_REPEAT, c.MIN_REPEAT}:
            return self._repeat(*value, dot_all=dot_all)
        options = value[1] if operator is c.BRANCH else [value[3]] if operator is c.SUBPATTERN else None
        if options is None or (operator is c.SUBPATTERN and (value[1] or value[2])):
            problem = _REFUSED.get(operator, str(operator).lower())
            raise self._error(f"uses {problem} in a place that is not supported")
        return f"(?:{'|'.join(self._items(option, dot_all=dot_all) for option in options)})"

    def _repeat(self, low: int, high: int, items: Any, *, dot_all: bool) -> str:
        unbounded = high == c.MAXREPEAT
        if low > _MOST_REPEATS or (not unbounded and high > _MOST_REPEATS):
            raise self._error(f"repeats more than {_MOST_REPEATS} times")
        body = self._items(items, dot_all=dot_all)
        return f"(?:{body}){{{low},{'' if unbounded else high}}}"

    def _set(self, members: Any) -> str:
        """Print a character class."""
        negated = members[0] == (c.NEGATE, None)
        parts = [self._member(operator, value) for operator, value in (members[1:] if negated else members)]
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _member(self, operator: Any, value: Any) -> str:
        if operator is c.LITERAL:
            return _char(value)
        if operator is c.RANGE:
            return f"{_char(value[0])}-{_char(value[1])}"
        if operator is c.CATEGORY and value in _CATEGORIES:
            return _CATEGORIES[value]
        if operator is c.CATEGORY and value in _NEGATED:
            return f"[^{_CATEGORIES[_NEGATED[value]]}]"
        raise self._error("uses a character class that is not supported")

    def _error(self, what: str) -> SchemaError:
        return SchemaError(f"`{self._keyword}` {what}", param=self._param)


def _char(code: int) -> str:
    """Print one character so that it is nothing but itself."""
    sign = chr(code)
    return sign if sign.isascii() and sign.isalnum() else f"\\u{{{code:x}}}"
