"""The inside of arrays and objects as grammar: items and members with commas between them, linear in their number."""

from __future__ import annotations

from api.gemma4.grammar import EMPTY, Grammar, Node, Repeat, choice, optional, sequence


def item_list(comma: Node, first: list[Node], rest: Node, bounds: tuple[int, int | None]) -> Node:
    """Return the items of an array: some with places of their own, then any number of others, with commas."""
    low, high = bounds
    count = len(first)
    first = first if high is None else first[:high]
    more = None if high is None else high - len(first)
    if not first:
        if high == 0:
            return EMPTY
        body = sequence(rest, Repeat(sequence(comma, rest), max(low - 1, 0), None if high is None else high - 1))
        return body if low else optional(body)
    tail: Node = EMPTY
    if more != 0 and rest is not EMPTY:
        tail = Repeat(sequence(comma, rest), max(low - count, 0), more)
    for index in range(len(first) - 1, -1, -1):
        item = sequence(*((comma,) if index else ()), first[index], tail)
        tail = item if index < low else optional(item)
    return tail


def member_list(grammar: Grammar, comma: Node, members: list[tuple[Node, bool]], other: Node | None) -> Node:
    """Return members in their order, the optional ones left out at will, others between them; linear in size.

    ``tails[i]`` is what may follow once something was written before member i.
    """
    between: Node = EMPTY if other is None else Repeat(sequence(comma, other))
    tail: Node = between
    heads: list[Node] = []
    for index in range(len(members) - 1, -1, -1):
        member, is_required = members[index]
        if is_required:
            heads.clear()
        heads.append(sequence(member, tail))
        following = sequence(comma, member)
        tail = grammar.add(sequence(between, following if is_required else optional(following), tail))
    if other is not None:
        heads.append(sequence(other, tail))
    body = choice(reversed(heads))
    return body if any(is_required for _, is_required in members) else optional(body)
