"""Memory that is given back in another thread, from destructors that may run anywhere."""

from __future__ import annotations

import gc
import mmap
import time
from collections.abc import Iterator

import pytest

from api.media.background_close import close_in_background, prepare
from api.media.large_body import LargeBody

DEADLINE_S = 100.0


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """Collect garbage at nearly every allocation."""
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


def _wait_closed(memory: mmap.mmap) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not memory.closed:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_memory_is_closed_soon() -> None:
    prepare()
    memory = mmap.mmap(-1, 4096)
    close_in_background(memory)
    _wait_closed(memory)


def test_memory_in_use_stays_and_the_next_is_closed_all_the_same() -> None:
    prepare()
    used, unused = mmap.mmap(-1, 4096), mmap.mmap(-1, 4096)
    with memoryview(used)[:1]:
        close_in_background(used)
        close_in_background(unused)
        _wait_closed(unused)
        assert not used.closed


@pytest.mark.usefixtures("eager_collector")
def test_destructors_that_run_while_another_does_never_wait_for_each_other() -> None:
    """The collector may call one in the middle of another's work, in the same thread: a lock would never be free."""
    memories = []
    for _ in range(300):
        body = LargeBody(4096)
        memories.append(body._memory)
        cycle: list[object] = [body]
        cycle.append(cycle)
        close_in_background(mmap.mmap(-1, 4096))
        del body, cycle
    gc.collect()
    for memory in memories:
        _wait_closed(memory)
