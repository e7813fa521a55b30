"""The grammar of a request in the form in which vLLM takes it.

vLLM's ``guidance`` backend lets one token end a grammar, its tokenizer's end token. Requests name several, so the stop
ids are written into the grammar itself: each may follow where the request's own grammar may end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.core import EngineRequest


def guide_of(request: EngineRequest) -> str:
    """Return llguidance Lark text for a request whose own grammar has compiled."""
    grammar = request.grammar or ""
    if not request.stop_ids or request.ignore_stop_ids:
        return _lark("start: answer", grammar)
    stops = " | ".join(f"<[{token_id}]>" for token_id in sorted(set(request.stop_ids)))
    return _lark(f"start: answer ({stops})?", grammar)


def _lark(start: str, grammar: str) -> str:
    return f"{start}\nanswer: %lark {{\n{grammar}\n}}\n"
