"""The sender of responses: order, joining, first and last at once, cancels, and nothing after the end."""

from __future__ import annotations

import math
import threading
import time

import pytest

from engine.core import EngineDelta, FinishReason, Usage
from engine.errors import EngineError, QueueFullError
from engine.triton import sender as sender_module
from engine.triton.sender import MAX_DELAY_S, Sender
from tests.fakes.measuring import best
from tests.fakes.processes import DEADLINE_S

LAST = EngineDelta((9,), (), FinishReason.STOP, Usage(1, 0, 9))


class RecordingReply:
    """Writes down what it is told, and may be held up or break."""

    def __init__(self):
        self.deltas = []
        self.times = []
        self.ends = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_gone = False
        self.is_broken = False
        self.asked_after_end = False

    def send(self, delta):
        assert self.gate.wait(DEADLINE_S)
        if self.is_broken:
            message = "broken"
            raise RuntimeError(message)
        # Whoever waits for a delta finds its time.
        self.times.append(time.monotonic())
        self.deltas.append(delta)
        if delta.finish_reason is not None:
            self.ends.append(delta.finish_reason)

    def fail(self, error):
        self.ends.append(error)

    def cancelled(self):
        self.ends.append("cancelled")

    def is_cancelled(self):
        self.asked_after_end |= bool(self.ends)
        return self.is_gone

    @property
    def ids(self):
        return [token_id for delta in self.deltas for token_id in delta.token_ids]


def until(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.001)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def sender(request):
    sender = Sender(request.param)
    yield sender
    sender.close()


def test_every_id_arrives_once_and_in_order(sender):
    """Whatever is joined, each sequence gets its own ids in order, and its end last."""
    replies = [RecordingReply() for _ in range(64)]
    outgoing = [sender.open(reply, lambda: None) for reply in replies]
    for step in range(50):
        for number, one in enumerate(outgoing):
            sender.delta(one, EngineDelta((number * 1000 + step,)))
    for one in outgoing:
        sender.delta(one, LAST)
    until(lambda: all(reply.ends for reply in replies))
    for number, reply in enumerate(replies):
        assert reply.ids == [*(number * 1000 + step for step in range(50)), 9]
        assert reply.ends == [FinishReason.STOP]
        assert reply.deltas[-1].usage == LAST.usage


def test_a_receiver_that_lags_gets_several_ids_in_one_response(sender):
    """What is drawn while a response is on its way shares the next one; the caller is never held up."""
    reply = RecordingReply()
    one = sender.open(reply, lambda: None)
    reply.gate.clear()
    for token_id in range(100):
        sender.delta(one, EngineDelta((token_id,)))
    assert not reply.deltas
    reply.gate.set()
    sender.delta(one, LAST)
    until(lambda: reply.ends)
    assert reply.ids == [*range(100), 9]
    assert len(reply.deltas) <= 3


def test_no_id_waits_longer_than_the_bound(sender, monkeypatch):
    """However dear responses are and however many sequences run, an id goes within the bound, and a first at once."""
    monkeypatch.setattr(sender, "_cost_s", 1.0)
    monkeypatch.setattr(sender_module, "COST_WEIGHT", 0.0)
    for _ in range(100):
        sender.open(RecordingReply(), lambda: None)

    def longest_of_a_first_and_a_last():
        reply = RecordingReply()
        one = sender.open(reply, lambda: None)
        begun = time.monotonic()
        sender.delta(one, EngineDelta((1,)))
        until(lambda: reply.deltas)
        sender.delta(one, EngineDelta((2,)))
        sender.delta(one, EngineDelta((3,)))
        until(lambda: sum(len(delta.token_ids) for delta in reply.deltas) == 3)
        # The end overtakes the wait.
        sender.delta(one, EngineDelta((4,)))
        told = time.monotonic()
        sender.delta(one, LAST)
        until(lambda: reply.ends)
        if [delta.token_ids for delta in reply.deltas] != [(1,), (2, 3), (4, 9)]:
            return math.inf  # this thread was held up itself, so that an id had waited long enough to go alone
        assert reply.times[1] - reply.times[0] >= MAX_DELAY_S * 0.9
        return max(reply.times[0] - begun, reply.times[-1] - told)

    assert best(longest_of_a_first_and_a_last, below=MAX_DELAY_S) < MAX_DELAY_S


def test_a_single_stream_is_not_delayed(sender):
    """With one sequence a response is allowed to follow the other at once, so each id can have its own."""
    reply = RecordingReply()
    one = sender.open(reply, lambda: None)

    def delay():
        count = len(reply.deltas)
        told = time.monotonic()
        sender.delta(one, EngineDelta((count,)))
        until(lambda: len(reply.deltas) == count + 1)
        return reply.times[-1] - told

    for count in range(1, 21):
        assert best(delay, below=MAX_DELAY_S) < MAX_DELAY_S
        assert len(reply.deltas) >= count


def test_a_client_that_left_is_noticed(sender):
    """Cancelling is told once and within 50 ms, and the request is ended as cancelled."""

    def noticed():
        reply = RecordingReply()
        told = threading.Event()
        calls = []
        one = sender.open(reply, lambda: (calls.append(1), told.set()))
        sender.delta(one, EngineDelta((1,)))
        until(lambda: reply.deltas)
        reply.is_gone = True
        begun = time.monotonic()
        assert told.wait(DEADLINE_S)
        took = time.monotonic() - begun
        sender.end(one, None)
        until(lambda: reply.ends)
        assert reply.ends == ["cancelled"]
        assert calls == [1]
        return took

    assert best(noticed, below=0.05) < 0.05


def test_an_error_ends_a_sequence_after_what_was_drawn(sender):
    """Ids that were drawn before the failure arrive; then comes the error, and nothing more."""
    reply = RecordingReply()
    one = sender.open(reply, lambda: None)
    error = EngineError("broken")
    sender.delta(one, EngineDelta((1,)))
    sender.end(one, error)
    until(lambda: reply.ends)
    sender.delta(one, EngineDelta((2,)))
    sender.end(one, QueueFullError("late"))
    other = RecordingReply()
    sender.delta(sender.open(other, lambda: None), LAST)
    until(lambda: other.ends)
    assert reply.ids == [1]
    assert reply.ends == [error]


def test_an_end_after_the_last_delta_changes_nothing(sender):
    """A task that is cancelled after its last delta was noted has finished all the same."""
    reply = RecordingReply()
    one = sender.open(reply, lambda: None)
    reply.gate.clear()
    sender.delta(one, EngineDelta((1,)))
    sender.delta(one, LAST)
    sender.end(one, None)
    reply.gate.set()
    until(lambda: reply.ends)
    assert reply.ids == [1, 9]
    assert reply.ends == [FinishReason.STOP]


def test_an_ended_request_is_never_touched_again(sender):
    """Its memory in the server is gone: no question for cancellation follows the last response."""
    replies = [RecordingReply() for _ in range(200)]
    for reply in replies:
        sender.delta(sender.open(reply, lambda: None), LAST)
    until(lambda: all(reply.ends for reply in replies))
    survivor = RecordingReply()
    told = threading.Event()
    survivor.is_gone = True
    sender.open(survivor, told.set)
    assert told.wait(DEADLINE_S)  # the watcher has gone over all sequences once more
    assert not any(reply.asked_after_end for reply in replies)


def test_a_response_that_cannot_be_sent_costs_no_other_sequence(sender, caplog):
    """The backend's own failure is logged and the thread lives on."""
    broken, whole = RecordingReply(), RecordingReply()
    broken.is_broken = True
    sender.delta(sender.open(broken, lambda: None), LAST)
    until(lambda: "could not be sent" in caplog.text)
    sender.delta(sender.open(whole, lambda: None), LAST)
    until(lambda: whole.ends)
    assert whole.ids == [9]
    assert sender.responses >= 2


def test_a_client_that_cannot_be_asked_for_costs_no_other_sequence(sender, caplog):
    """The thread that asks lives on."""
    broken = RecordingReply()
    broken.is_cancelled = lambda: 1 / 0
    sender.open(broken, lambda: None)
    until(lambda: "could not be asked" in caplog.text)
    gone, told = RecordingReply(), threading.Event()
    gone.is_gone = True
    sender.open(gone, told.set)
    assert told.wait(DEADLINE_S)


def test_closing_sends_what_waits(sender):
    """close() loses nothing."""
    reply = RecordingReply()
    one = sender.open(reply, lambda: None)
    for token_id in range(10):
        sender.delta(one, EngineDelta((token_id,)))
    sender.close()
    assert reply.ids == list(range(10))
