"""Grammars as TensorRT-LLM's guided decoder needs them: a sequence's whole answer, its stop ids included.

Pure text in llguidance's Lark. The library's matcher starts with the first drawn id, allows only the tokenizer's own
end token where a grammar may end, and knows nothing of a least number of tokens; here that is written down instead.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def ended_by(lark: str, stop_ids: Iterable[int]) -> str:
    """Return a grammar that takes what ``lark`` takes, then one stop id. ``lark`` must compile by itself."""
    stop = _token([(token_id, token_id) for token_id in sorted(set(stop_ids))])
    return f"start: answer {stop}\nanswer: %lark {{\n{lark}\n}}\n"


def no_stop_before(count: int, stop_ids: Iterable[int], vocab_size: int) -> str:
    """Return a grammar that takes any ids, but no stop id among the first ``count``."""
    free = _token(_gaps(sorted(set(stop_ids)), vocab_size))
    return f"start: {free}{{{count}}} rest\nrest: {_token([(0, vocab_size - 1)])}*\n"


def _token(ranges: list[tuple[int, int]]) -> str:
    return f"<[{','.join(str(a) if a == b else f'{a}-{b}' for a, b in ranges)}]>"


def _gaps(ids: list[int], vocab_size: int) -> list[tuple[int, int]]:
    """Return the ranges of all ids but these."""
    edges = [-1, *ids, vocab_size]
    return [(low + 1, high - 1) for low, high in pairwise(edges) if high - low > 1]
