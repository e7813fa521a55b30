"""What a download tells about itself."""

from __future__ import annotations

import pytest

from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.download.progress import DownloadState, Phase, Rate, describe
from tests.launcher.download.conftest import Seen, access, content
from tests.launcher.download.servers import Answer, FileServer, Request

BODY = content(500_000, 13)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A pause long ago does not count."""
    clock = Clock()
    rate = Rate(clock)

    assert rate(0) is None
    for count in (100, 200, 300):
        clock.now += 1
        assert rate(count) == pytest.approx(100)
    for count in range(300, 3300, 100):
        clock.now += 0.5
        rate(count)
    assert rate(3200) == pytest.approx(200, rel=0.1)


def test_a_state_is_one_line_for_people() -> None:
    """Phase, amount, rate and time left; while the hub is asked nothing is known but the note."""
    state = DownloadState(Phase.DOWNLOADING, 10 * 10**9, 50 * 10**9, rate=1e9, eta_s=40)

    assert describe(state) == "model files: downloading, 10.00 GB of 50.00 GB (20 %), 1000.0 MB/s, about 40 s left"
    assert describe(DownloadState(Phase.RESOLVING, note="hub busy")) == "model files: resolving, hub busy"


def test_states_never_go_back_and_end_with_everything(cache: Cache) -> None:
    """What a bar shows: done never shrinks, the sum of the files is the total, the last state is full."""
    with FileServer({"/a": BODY, "/b": BODY[:1000]}) as server:
        seen = Seen()
        fetch_workspace([FileRequest(n, f"{server.url}/{n}") for n in "ab"], cache, access(), seen)

    states = [state for state in seen.states if state.phase is Phase.DOWNLOADING]
    done = [state.bytes_done for state in states]
    assert done == sorted(done)
    assert {state.bytes_total for state in states} == {len(BODY) + 1000}
    assert all(sum(file.bytes_done for file in state.files) == state.bytes_done for state in states)
    assert states[-1].bytes_done == states[-1].bytes_total
    assert seen.states[-1].phase is Phase.DONE


def test_trouble_shows_in_the_progress_while_it_lasts(cache: Cache) -> None:
    """Instead of minutes of silence: what fails, and which attempt comes next."""
    failures = [0]

    def busy(_: Request, __: Answer) -> Answer | None:
        failures[0] += 1
        return Answer(503) if failures[0] <= 2 else None

    with FileServer({"/a": BODY}) as server:
        server.faults.append(busy)
        seen = Seen()
        fetch_workspace([FileRequest("a", f"{server.url}/a")], cache, access(), seen)

    notes = [state.note for state in seen.states if state.note]
    assert notes[0].endswith("answered 503; attempt 2 of 4")
    assert not seen.states[-1].note
