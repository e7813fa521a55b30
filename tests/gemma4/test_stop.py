"""Stop texts in a stream: the same end for every split, nothing of them shown, nothing held back for nothing."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.gemma4.stop import StopMatcher

TEXTS = st.text("ab.", max_size=24)
STOPS = st.lists(st.text("ab.", min_size=1, max_size=6), max_size=5)
MILLION = 1_000_000


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Return what stands before the stop text that ends first (the longest of those), and that text."""
    hits = [
        (match.start() + len(stop), -len(stop), stop) for stop in stops for match in re.finditer(re.escape(stop), text)
    ]
    if not hits:
        return text, None
    end, _, stop = min(hits)
    return text[: end - len(stop)], stop


@settings(max_examples=1000, deadline=None)
@given(pieces=st.lists(TEXTS, max_size=8), stops=STOPS)
def test_the_end_does_not_depend_on_the_split(pieces: list[str], stops: list[str]) -> None:
    """However the text is split and however the stop texts overlap, it ends at the one that ends first."""
    text = "".join(pieces)
    matcher = StopMatcher(stops)
    shown = "".join(matcher.feed(piece) for piece in pieces)
    assert (shown + matcher.flush(), matcher.matched) == expected(text, stops)


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(TEXTS, max_size=8), stops=STOPS)
def test_a_stop_text_may_be_shown(pieces: list[str], stops: list[str]) -> None:
    """Then it is the end of what is shown, and nothing else differs."""
    matcher = StopMatcher(stops, shown=True)
    shown = "".join(matcher.feed(piece) for piece in pieces) + matcher.flush()
    before, stop = expected("".join(pieces), stops)
    assert (shown, matcher.matched) == (before + (stop or ""), stop)


@settings(max_examples=500, deadline=None)
@given(text=TEXTS, stops=STOPS)
def test_only_what_could_become_a_stop_text_is_held(text: str, stops: list[str]) -> None:
    """Until a match, what is held back is the longest end that begins a stop text, and no more."""
    matcher = StopMatcher(stops)
    shown = ""
    for length, character in enumerate(text, start=1):
        shown += matcher.feed(character)
        if matcher.matched is not None:
            return
        held = text[len(shown) : length]
        beginnings = [stop[:size] for stop in stops for size in range(1, len(stop))]
        assert held == max((b for b in beginnings if text[:length].endswith(b)), key=len, default="")


def test_nothing_continues_what_was_flushed() -> None:
    """After a flush, as between two stretches of an answer's text, a stop text must begin anew."""
    matcher = StopMatcher(["Paris"])
    assert matcher.feed("in Par") + matcher.flush() + matcher.feed("is") == "in Paris"
    assert matcher.matched is None


@pytest.mark.parametrize("stop", ["a" * 5000 + "b", "aaaaab"])
def test_hostile_text_costs_linear_time(stop: str) -> None:
    """A million characters that always look like the beginning of the stop text take seconds at most."""
    matcher = StopMatcher([stop])
    started = time.thread_time()
    shown = sum(len(matcher.feed("a" * 100)) for _ in range(MILLION // 100))
    assert shown + len(matcher.flush()) == MILLION
    assert time.thread_time() - started < 20
