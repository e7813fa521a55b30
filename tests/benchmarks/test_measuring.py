"""The benchmarks' own tools measure what they say: a wrong ruler would make every figure wrong."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks.enforcement_cases import CASES
from benchmarks.processes import cpu_seconds
from benchmarks.stream_client import texts_of

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(*parts: bytes) -> bytes:
    """Return an answer in HTTP chunks."""
    return HEAD + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def test_texts_come_out_of_events_however_they_are_chunked():
    """An event may be split between chunks, and a chunk may hold several."""
    events = b'data: {"choices":[{"delta":{"content":"a\\n"}}]}\n\ndata: {"choices":[{"delta":{}}]}\n\ndata: [DONE]\n\n'

    assert texts_of(chunked(events)) == ["a\n"]
    assert texts_of(chunked(*(events[i : i + 7] for i in range(0, len(events), 7)))) == ["a\n"]


def test_an_unfinished_stream_is_no_result():
    """A stream without its end, or with another status, stops the benchmark."""
    with pytest.raises(ValueError, match="no end"):
        texts_of(chunked(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'))
    with pytest.raises(ValueError, match="503"):
        texts_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")


def test_cpu_time_is_that_of_work_not_of_the_clock():
    """CPU time of this process grows with its own work."""
    before, own = cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < own + 0.2:
        pass
    grown = cpu_seconds(os.getpid()) - before

    assert 0.1 < grown < time.process_time() - own + 0.1


@pytest.mark.parametrize("case", [case for case in CASES if "schema" in case.name or case.name == "required"])
def test_judges_see_what_is_wrong(case):
    """Judges find broken arguments and broken JSON; a matrix of zeros is worth nothing if they cannot."""
    call = {"function": {"name": "move", "arguments": '{"to":"west","steps":[1]}'}}
    broken = {"content": '{"name":"x"}', "tool_calls": None}

    by_call = {wrong for judge in case.judges for wrong in judge({"content": None, "tool_calls": [call]})}
    by_text = {wrong for judge in case.judges for wrong in judge(broken)}

    assert by_text
    assert by_call or "tools" not in case.fields
