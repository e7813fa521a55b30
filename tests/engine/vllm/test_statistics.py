"""What the vLLM core makes of its own counts and of what vLLM's scheduler says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.core import EngineRequest
from engine.vllm.following import Following
from engine.vllm.statistics import Observed, Statistics


@dataclass
class Sequence:
    """A sequence of the core, as far as its statistics are concerned."""

    following: Following
    name: str = ""


def sequences(*drawn):
    """Return sequences that have drawn so many ids; None is one that vLLM does not have yet."""
    made = []
    for count in drawn:
        following = Following(EngineRequest("r", (1, 2, 3), 4), None, end_id=0)
        following.drawn = count or 0
        made.append(Sequence(following, "" if count is None else "s"))
    return made


@pytest.mark.parametrize(
    ("drawn", "waiting", "running", "queued"),
    [
        ((), 2, 0, 0),
        ((5, 0, 0), 0, 2, 1),
        ((5, 0), 0, 2, 0),
        ((5, 0), 1, 1, 1),
        ((5, 5), 2, 2, 0),
        ((5, None), 0, 1, 1),
    ],
    ids=["idle", "more than may run", "all run", "no memory for one", "said before they drew", "a grammar compiles"],
)
def test_what_runs_and_what_waits(drawn, waiting, running, queued):
    """Two run at most; what the scheduler said may be out of date, and makes none wait that draws."""
    stats = Statistics(2, Observed(waiting=waiting)).report(sequences(*drawn))
    assert (stats.running, stats.queued) == (running, queued)


def test_the_cache_is_empty_when_nothing_runs():
    """The scheduler's last word was of a step that had a sequence in it."""
    statistics = Statistics(2, Observed(cache_usage=0.25, preemptions=3), cache_tokens=1000)
    assert statistics.report(sequences(1)).kv_tokens_used == 250
    after = statistics.report([])
    assert (after.kv_tokens, after.kv_tokens_used, after.preemptions_total) == (1000, 0, 3)
    assert Statistics(2).report(sequences(1)).kv_tokens_used is None


def test_what_vllm_never_had_is_not_counted():
    """Tokens of a sequence that was refused or aborted before it was handed over were not computed."""
    statistics = Statistics(2)
    for sequence in sequences(4, None):
        statistics.add(sequence)
    stats = statistics.report(sequences(2))
    assert (stats.prompt_tokens_total, stats.completion_tokens_total) == (3, 6)
