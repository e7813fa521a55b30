"""The core's host: sequences run in its loop, and every request gets an end, whatever the core does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats, FinishReason, Usage
from engine.errors import EngineError, InvalidRequestError, QueueFullError
from engine.triton.host import CoreHost
from engine.triton.sender import Sender

LIMITS = EngineLimits(64, 2, 2, 100, vision=False, grammar=False, logprobs=False, core="scripted", model="m")


class ScriptedCore:
    """Does what the request's cache salt says."""

    def __init__(self):
        self.running = 0
        self.is_closed = False

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        self.running += 1
        try:
            if request.cache_salt == "refuse":
                raise QueueFullError("full")
            yield EngineDelta((1,))
            if request.cache_salt == "break":
                raise ZeroDivisionError
            if request.cache_salt == "wait":
                await asyncio.Event().wait()
            if request.cache_salt != "stop short":
                yield EngineDelta((2,), (), FinishReason.STOP, Usage(1, 0, 2))
        finally:
            self.running -= 1

    async def health(self) -> bool:
        return not self.is_closed

    def limits(self) -> EngineLimits:
        return LIMITS

    def stats(self) -> EngineStats:
        return EngineStats(self.running, 0, 0, 0, 0, 0)

    async def close(self) -> None:
        self.is_closed = True


class Reply:
    def __init__(self):
        self.ids = []
        self.end = None
        self.is_gone = False
        self.has_ended = threading.Event()
        self.has_begun = threading.Event()

    def _finish(self, end):
        self.end = end
        self.has_ended.set()

    def send(self, delta):
        self.ids += delta.token_ids
        self.has_begun.set()
        if delta.finish_reason is not None:
            self._finish(delta.finish_reason)

    def fail(self, error):
        self._finish(error)

    def cancelled(self):
        self._finish("cancelled")

    def is_cancelled(self):
        return self.is_gone


@pytest.fixture
def seen():
    return []


@pytest.fixture
def core():
    return ScriptedCore()


@pytest.fixture
def host(core, seen):
    host = CoreHost(core, Sender(), lambda state, sender: seen.append((state, sender.responses)))
    yield host
    if not core.is_closed:
        host.close()


def run(host, what=""):
    reply = Reply()
    host.submit(EngineRequest("r", (1,), 4, cache_salt=what), reply)
    return reply


def test_a_sequence_runs_to_its_end(host):
    reply = run(host)
    assert reply.has_ended.wait(100)
    assert (reply.ids, reply.end) == ([1, 2], FinishReason.STOP)


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("refuse", QueueFullError, "full"),
        ("break", EngineError, "the engine failed"),
        ("stop short", EngineError, "the engine failed"),
    ],
)
def test_every_failure_reaches_the_client(host, what, kind, words):
    """A refusal keeps its class; a fault of the core, or an end without a reason, is told without its details."""
    reply = run(host, what)
    assert reply.has_ended.wait(100)
    assert type(reply.end) is kind
    assert words in reply.end.message


def test_a_cancelled_request_frees_the_core(host, core):
    """The core's iterator is closed before the request is ended as cancelled."""
    reply = run(host, "wait")
    assert reply.has_begun.wait(100)
    reply.is_gone = True
    assert reply.has_ended.wait(100)
    assert reply.end == "cancelled"
    assert core.running == 0


def test_a_refused_request_is_answered(host):
    reply = Reply()
    error = InvalidRequestError("no")
    host.refuse(error, reply)
    assert reply.has_ended.wait(100)
    assert reply.end is error


def test_the_state_is_told_on_demand_and_observed(host, seen):
    """Whoever asks gets the state of the moment; the observer is told without asking."""
    told = threading.Event()
    states = []
    host.tell_state(lambda state: (states.append(state), told.set()))
    assert told.wait(100)
    assert states[0].is_healthy
    assert states[0].limits == LIMITS
    assert seen[0][0].stats == EngineStats(0, 0, 0, 0, 0, 0)


def test_an_observer_that_fails_is_asked_again(core, monkeypatch, caplog):
    """What cannot be told now is told the next time; the fault stands in the log."""
    monkeypatch.setattr("engine.triton.host.STATE_INTERVAL_S", 0.01)
    told = threading.Event()
    calls = []

    def observe(state, _):
        calls.append(state)
        if len(calls) == 1:
            raise ZeroDivisionError
        told.set()

    host = CoreHost(core, Sender(), observe)
    try:
        assert told.wait(10)
    finally:
        host.close()
    assert "could not be told" in caplog.text


def test_closing_ends_what_runs(host, core):
    """close() ends every request and closes the core."""
    reply = run(host, "wait")
    assert reply.has_begun.wait(100)
    host.close()
    assert reply.has_ended.wait(100)
    assert core.is_closed
