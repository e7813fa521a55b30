"""A small grammar tree and its one printer: llguidance's Lark, with special tokens by id.

The tree knows nothing of schemas or chats. ``api.gemma4.schema_grammar`` and ``api.gemma4.answer_grammar`` build it, an
engine's matcher compiles the text. The matcher's lexer takes the longest literal and never goes back, so literals are
kept as small as the structure: one that is the beginning of another plus what follows it would lead into a dead end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    """Exactly this text; the empty text matches nothing but itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text that matches all of some regular expressions, from start to end, and is none of the ``excluded`` texts.

    The texts of ``absent`` stand nowhere in it.
    """

    regexes: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One token out of some inclusive ranges of ids."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, *ids: int) -> Token:
        """Make the node for single ids."""
        return cls(tuple((token_id, token_id) for token_id in ids))


@dataclass(frozen=True, slots=True)
class JsonLeaf:
    """A number or a JSON string that satisfies a scalar schema, which the matcher's own JSON support checks."""

    schema: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """A caller's own grammar in Lark, with a ``start`` rule."""

    lark: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; none is the empty text."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Between ``low`` and ``high`` times; ``high`` None is without bound."""

    item: Node
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """A named rule, which may refer to itself."""

    name: str


Node = Literal | Pattern | Token | JsonLeaf | Embedded | Sequence | Choice | Repeat | Reference

EMPTY = Sequence(())


def sequence(*items: Node) -> Node:
    """Join nodes, flattening sequences and dropping empty literals."""
    flat: list[Node] = []
    for item in items:
        parts = item.items if isinstance(item, Sequence) else (item,)
        flat += [part for part in parts if part != Literal("")]
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(options: Iterable[Node]) -> Node:
    """Choose among nodes; doubles are dropped. There must be at least one."""
    unique = tuple(dict.fromkeys(options))
    return unique[0] if len(unique) == 1 else Choice(unique)


def optional(node: Node) -> Node:
    """Make a node that may be left out."""
    return Repeat(node, 0, 1)


class Grammar:
    """Named rules, printed with the rule ``start`` first. Names are made here, so they cannot clash.

    ``literals`` holds every literal that was printed.
    """

    def __init__(self) -> None:
        self._rules: dict[str, Node] = {}
        self._terminals: dict[str, str] = {}
        self._reserved = 0
        self.literals: set[str] = set()

    def reserve(self) -> Reference:
        """Return the name of a rule that is defined later: that is how rules refer to themselves."""
        self._reserved += 1
        return Reference(f"r{self._reserved}")

    def define(self, reference: Reference, node: Node) -> Reference:
        """Give a reserved rule its body."""
        self._rules[reference.name] = node
        return reference

    def add(self, node: Node) -> Reference:
        """Make a rule, to be used in several places."""
        return self.define(self.reserve(), node)

    def to_lark(self, start: Node) -> str:
        """Print the grammar."""
        lines = [f"start: {self._print(start)}"]
        lines += [f"{name}: {self._print(node)}" for name, node in self._rules.items()]
        lines += [f"{name}: {body}" for body, name in self._terminals.items()]
        return "\n".join(lines) + "\n"

    def _print(self, node: Node, *, inner: bool = False) -> str:
        """Print a node; ``inner`` puts brackets round what binds loosely."""
        match node:
            case Literal(text):
                self.literals.add(text)
                printed = _quote(text)
            case Reference(name):
                printed = name
            case Token(ranges):
                printed = f"<[{','.join(str(a) if a == b else f'{a}-{b}' for a, b in ranges)}]>"
            case Pattern():
                printed = self._terminal(node)
            case Repeat():
                printed = self._print_repeat(node)
            case JsonLeaf(schema):
                # Without the option, white space is accepted where two such leaves are alternatives.
                strict = {"x-guidance": {"whitespace_flexible": False}}
                printed = self._named(f"%json {json.dumps({**json.loads(schema), **strict})}")
            case Embedded(lark):
                printed = self._named(f"%lark {{\n{lark}\n}}")
            case Choice(options):
                text = " | ".join(self._print(option) for option in options)
                printed = f"({text})" if inner else text
            case Sequence(items):
                text = " ".join(self._print(item, inner=True) for item in items) or '""'
                printed = f"({text})" if inner and len(items) > 1 else text
        return printed

    def _print_repeat(self, node: Repeat) -> str:
        if node.high == 0:
            return '""'
        body = self._print(node.item)
        if (node.low, node.high) == (0, 1):
            return f"({body})?"
        if node.high is None and node.low <= 1:
            return f"({body}){'+' if node.low else '*'}"
        return f"({body}){{{node.low},{'' if node.high is None else node.high}}}"

    def _terminal(self, node: Pattern) -> str:
        """Print a pattern as a terminal of its own; equal ones share it."""
        body = " & ".join(f"/{_escape_slashes(regex)}/" for regex in node.regexes)
        if node.excluded:
            body += f" & ~({' | '.join(_quote(text) for text in node.excluded)})"
        if node.absent:
            body += f" & ~/(?s:.)*(?:{'|'.join(map(_escape_regex, node.absent))})(?s:.)*/"
        return self._terminals.setdefault(body, f"T{len(self._terminals)}")

    def _named(self, text: str) -> str:
        """Print a nested grammar as a rule of its own; equal ones share it."""
        return self._terminals.setdefault(text, f"n{len(self._terminals)}")


def _quote(text: str) -> str:
    # The one character that JSON leaves as it is and Lark's strings refuse.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _escape_slashes(regex: str) -> str:
    """Escape slashes that are not escaped yet, and write newlines as escapes."""
    out: list[str] = []
    escaped = False
    for sign in regex:
        if sign == "/" and not escaped:
            out.append("\\/")
        elif sign == "\n":
            out.append("n" if escaped else "\\n")
        else:
            out.append(sign)
        escaped = sign == "\\" and not escaped
    return "".join(out)


def _escape_regex(text: str) -> str:
    """Write a text as the regular expression that matches just it."""
    return "".join(sign if sign.isascii() and sign.isalnum() else f"\\x{{{ord(sign):x}}}" for sign in text)
