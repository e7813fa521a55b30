"""Steps survive their wire unchanged: every sequence's receiver gets what was said of it, in order."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from engine.core import EngineDelta, FinishReason, TokenLogprob, Usage, join_deltas
from engine.errors import ContextOverflowError, EngineError, InvalidRequestError
from engine.step_messages import (
    CANCEL,
    deliver,
    encode_cancel,
    encode_news,
    encode_numbered_request,
    number_of,
    stream_path,
)
from engine.triton.protocol import service_pb2
from engine.wire import decode_request
from tests.engine.receivers import Recorder

ids = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
single = st.floats(width=32, allow_nan=False)
counts = st.integers(0, 2**31 - 1)
usages = st.none() | st.builds(Usage, counts, counts, counts)


@st.composite
def deltas(draw, *, is_last: bool) -> EngineDelta:
    """Return a delta, some with log-probabilities."""
    token_ids = draw(ids)
    logprobs: tuple[TokenLogprob, ...] = ()
    if draw(st.booleans()):
        logprobs = tuple(TokenLogprob(token_id, draw(single)) for token_id in token_ids)
    reason = draw(st.sampled_from(FinishReason)) if is_last else None
    return EngineDelta(token_ids, logprobs, reason, draw(usages))


@st.composite
def histories(draw) -> dict[int, list[EngineDelta | EngineError]]:
    """Return what happens to some sequences: deltas, and then perhaps a last one or an error."""
    made: dict[int, list[EngineDelta | EngineError]] = {}
    for number in draw(st.lists(st.integers(1, 2**62), max_size=6, unique=True)):
        made[number] = [draw(deltas(is_last=False)) for _ in range(draw(st.integers(0, 3)))]
        end = draw(st.sampled_from(["open", "last", "error"]))
        if end == "last":
            made[number].append(draw(deltas(is_last=True)))
        elif end == "error":
            made[number].append(ContextOverflowError(9, 4))
    return made


@given(histories(), st.randoms(use_true_random=False))
def test_receivers_get_their_own_news_in_order(history, random):
    """However sequences are mixed in a step, each receiver gets its own deltas, and ended ones are forgotten."""
    recorders = {number: Recorder() for number in history}
    receivers = dict(recorders)
    queues = {number: list(entries) for number, entries in history.items()}
    news = []
    while left := [number for number, queue in queues.items() if queue]:
        number = random.choice(left)
        news.append((number, queues[number].pop(0)))
    for message in encode_news(news):
        deliver(service_pb2.ModelStreamInferResponse.FromString(message.SerializeToString()), receivers)
    for number, entries in history.items():
        got = recorders[number]
        assert got.deltas == [entry for entry in entries if isinstance(entry, EngineDelta)]
        assert (got.error is not None) == (bool(entries) and isinstance(entries[-1], EngineError))
        ended = bool(entries) and (isinstance(entries[-1], EngineError) or entries[-1].finish_reason is not None)
        assert (number not in receivers) == ended


def test_a_step_of_many_sequences_is_one_message():
    """Plain deltas of any number of sequences share a message."""
    news = [(number, EngineDelta((number,))) for number in range(1, 65)]
    assert len(list(encode_news(news))) == 1


def test_news_of_unknown_sequences_are_ignored():
    """A sequence that was let go may still have deltas on the way."""
    known = Recorder()
    receivers = {2: known}
    news = [(1, EngineDelta((5,))), (2, EngineDelta((6,))), (1, InvalidRequestError("late"))]
    for message in encode_news(news):
        deliver(message, receivers)
    assert known.deltas == [EngineDelta((6,))]


def test_requests_carry_their_number(tools):
    """A numbered request is an ordinary one with a number, and a cancellation names it."""
    wanted = tools.request((1, 2, 3), 4)
    message = encode_numbered_request(7, wanted)
    assert number_of(message) == 7
    assert decode_request(message).prompt_ids == (1, 2, 3)
    assert CANCEL not in message.parameters
    assert number_of(encode_cancel(7)) == 7
    assert encode_cancel(7).parameters[CANCEL].bool_param


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [("unix:/run/e.sock", "/run/e.sock.steps"), ("unix:///run/e", "/run/e.steps"), ("127.0.0.1:9000", None)],
)
def test_the_stream_is_beside_a_unix_socket(endpoint, path):
    """Only an engine on the same machine has a step stream."""
    assert stream_path(endpoint) == path


@given(st.lists(deltas(is_last=False), min_size=1, max_size=4))
def test_joined_deltas_say_the_same(parts):
    """Joining keeps ids and log-probabilities in order and the latest usage."""
    joined = join_deltas(parts)
    assert joined.token_ids == sum((part.token_ids for part in parts), ())
    assert joined.logprobs == sum((part.logprobs for part in parts), ())
    assert joined.usage == ([part.usage for part in parts if part.usage] or [None])[-1]
