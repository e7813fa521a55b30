"""``gemma4-nim bench`` as its user runs it, and its arithmetic on samples whose answer is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.commands.bench.prompts import PROBE_WORDS, WordCost
from launcher.commands.bench.statistics import distribution, percentile, summarise
from launcher.commands.bench.stream_request import Sample
from launcher.errors import ExitCode
from tests.fakes import commands
from tests.fakes.openai_server import FakeServer, openai_server
from tests.fakes.processes import free_port, wait_until
from tests.fakes.terminal import Terminal

pytestmark = pytest.mark.slow

COMMAND = [str(Path(sys.executable).with_name("gemma4-nim")), "bench"]
TIMEOUT_S = 250
TOKEN_S = 0.02


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server whose answers have three tokens, 20 ms after each other."""
    with openai_server() as running:
        pause = lambda: time.sleep(TOKEN_S)  # noqa: E731 - the speed of the scripted model
        running.script.answer = (pause, {"content": "a"}, pause, {"content": "b"}, pause, {"content": "c"})
        yield running


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("NIM_")}


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run([*COMMAND, *arguments], _environment(), TIMEOUT_S)


def _json(*arguments: str) -> dict[str, Any]:
    done = _bench("--json", *arguments)
    assert done.returncode == ExitCode.OK, done.stderr
    return json.loads(done.stdout)


def test_figures_are_those_of_the_server(server: FakeServer) -> None:
    """Counts are the server's; latencies are at least what it slept, and add up."""
    record = _json("--url", server.url, "-c", "1,2", "-n", "4", "-i", "25", "-o", "3", "--warmup", "1")

    assert record["model"] == "fake-model"
    assert [level["concurrency"] for level in record["levels"]] == [1, 2]
    for level in record["levels"]:
        assert (level["completed"], level["errors"]) == (4, {})
        assert level["prompt_tokens"] == 4 * 25
        assert level["completion_tokens"] == 4 * 3
        assert level["ttft"]["smallest"] >= TOKEN_S
        # Who reads a first token late sees less time between the others, so only their sum is sure.
        assert level["ttft"]["mean"] + 2 * level["token_time"]["mean"] >= 3 * TOKEN_S
        assert level["ttft"]["mean"] + 2 * level["token_time"]["mean"] <= level["request_time"]["mean"]
        assert level["request_time"]["smallest"] >= 3 * TOKEN_S
        assert level["output_tokens_per_second"] == pytest.approx(12 / level["seconds"])
        assert level["total_tokens_per_second"] == pytest.approx(112 / level["seconds"])
    alone, together = record["levels"]
    assert alone["seconds"] >= 4 * 3 * TOKEN_S
    assert together["seconds"] >= 2 * 3 * TOKEN_S


def test_requests_are_what_was_asked_for(server: FakeServer) -> None:
    """Lengths, model and end are sent; no two prompts are alike; a seed repeats them."""
    options = ("--url", server.url, "-c", "2", "-n", "3", "-o", "9", "--warmup", "0", "--model", "other")
    _json(*options, "--seed", "5")
    first = list(server.script.requests)
    server.script.requests.clear()
    _json(*options, "--seed", "5", "--natural-end")
    again = list(server.script.requests)

    probes, measured = first[:2], first[2:]
    assert [len(_prompt(probe).split()) for probe in probes] == list(PROBE_WORDS)
    assert len(measured) == 3
    assert {request["model"] for request in measured} == {"other"}
    assert {request["max_tokens"] for request in measured} == {9}
    assert all(request["ignore_eos"] for request in measured)
    assert len({_prompt(request) for request in measured}) == 3
    assert {_prompt(request) for request in again} == {_prompt(request) for request in first}
    assert not any("ignore_eos" in request for request in again)


def _prompt(request: dict[str, Any]) -> str:
    return str(request["messages"][0]["content"])


def test_time_limits_the_run(server: FakeServer) -> None:
    """--seconds sends as many requests as there is time for."""
    (level,) = _json("--url", server.url, "-c", "1", "--seconds", "0.5", "--warmup", "0")["levels"]

    assert 1 <= level["completed"] <= 0.5 / (3 * TOKEN_S) + 1


def test_rate_spreads_the_requests(server: FakeServer) -> None:
    """--rate starts requests at random moments that average the rate, and says so in the result."""
    record = _json("--url", server.url, "-c", "8", "-n", "10", "--rate", "20", "--warmup", "0")

    (level,) = record["levels"]
    assert level["completed"] == 10
    assert level["rate"] == 20
    assert level["seconds"] > 0.1


def test_tables_for_people(server: FakeServer) -> None:
    """Without --json there are two tables and no colour codes when nobody watches."""
    done = _bench("--url", server.url, "-c", "1", "-n", "2", "--warmup", "0")

    assert done.returncode == ExitCode.OK
    assert "output tokens/s" in done.stdout
    assert "to the first token" in done.stdout
    assert "p99" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_progress_is_shown_on_a_terminal(server: FakeServer) -> None:
    """A bar counts the requests while they run."""
    with Terminal([*COMMAND, "--url", server.url, "-c", "1", "-n", "3", "--warmup", "0"]) as terminal:
        terminal.wait_for("1 at once")
        terminal.wait_for("3/3")
        terminal.wait_for("Latency, 1 at once")
        assert terminal.end() == ExitCode.OK


def test_failed_requests_are_counted_and_end_with_a_status(server: FakeServer) -> None:
    """Requests that fail are told with the server's words, are in no figure, and the status is not 0."""
    answered = threading.Event()

    def refuse_later() -> None:
        # The probes succeed, what is measured does not.
        if len(server.script.requests) >= 2:
            server.script.refusal = (429, "the queue is full")
            answered.set()

    server.script.answer = ({"content": "a"}, refuse_later)
    done = _bench("--url", server.url, "-c", "1", "-n", "5", "--warmup", "0")

    assert answered.is_set()
    assert done.returncode == ExitCode.DOWNLOAD_FAILED
    assert "5 of 5 requests failed: the server says: the queue is full" in done.stdout
    assert "gemma4-nim: 5 requests failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_broken_connections_are_failures(server: FakeServer) -> None:
    """A connection that ends in the middle of an answer is no answer."""

    def break_later() -> None:
        server.script.breaks_off = len(server.script.requests) > 2

    server.script.answer = (break_later, {"content": "a"})
    done = _bench("--url", server.url, "-c", "1", "-n", "2", "--warmup", "0", "--json")

    assert done.returncode == ExitCode.DOWNLOAD_FAILED
    (level,) = json.loads(done.stdout)["levels"]
    assert level["completed"] == 0
    assert sum(level["errors"].values()) == 2
    assert level["ttft"] is None


def test_interrupt_shows_what_was_measured(server: FakeServer) -> None:
    """Ctrl-C ends the run with status 130 and the figures so far."""
    process = subprocess.Popen(
        [*COMMAND, "--url", server.url, "-c", "1", "-n", "10000", "--warmup", "0", "--json"],
        stdout=subprocess.PIPE, text=True, env=_environment(),
    )  # fmt: skip
    wait_until(lambda: len(server.script.requests) > 5, what="some requests")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 130
    assert 1 <= json.loads(output)["levels"][0]["completed"] < 10000


@pytest.mark.parametrize("value", ["0", "a", "1,,2", "-1", "1.5"])
def test_bad_concurrency_is_named(value: str) -> None:
    """What is no list of numbers is refused before anything is sent."""
    done = _bench(f"--concurrency={value}")

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert f"--concurrency '{value}' is no list of numbers" in done.stderr


def test_no_server_is_one_line_and_a_status() -> None:
    """Nobody listens: the address, and what to do."""
    url = f"http://127.0.0.1:{free_port()}"
    done = _bench("--url", url)

    assert done.returncode == ExitCode.DOWNLOAD_FAILED
    assert f"no server answers at {url}" in done.stderr


def test_bench_with_the_product(base_url: str) -> None:
    """The real server generates exactly the tokens asked for, and prompts have about the length asked for."""
    (level,) = _json("--url", base_url, "-c", "2", "-n", "4", "-i", "100", "-o", "8")["levels"]

    assert (level["completed"], level["errors"]) == (4, {})
    assert level["completion_tokens"] == 4 * 8
    assert 70 <= level["prompt_tokens"] / 4 <= 130
    assert level["ttft"]["smallest"] > 0


def _sample(sent: float, arrivals: list[float], tokens: int, error: str = "") -> Sample:
    return Sample(sent, (arrivals or [sent])[-1] + 0.5, arrivals, 10, 4, tokens, error)


def test_summary_of_known_samples() -> None:
    """Two answers and a failure: every figure by hand."""
    figures = summarise(
        [_sample(0.0, [1.0, 2.0, 3.0], 5), _sample(1.0, [2.5], 1), _sample(0.5, [], 0, "the server says: no")], 2
    )

    assert (figures.completed, dict(figures.errors)) == (2, {"the server says: no": 1})
    assert (figures.prompt_tokens, figures.cached_tokens, figures.completion_tokens) == (20, 8, 6)
    assert figures.seconds == 3.5
    assert figures.ttft is not None
    assert (figures.ttft.mean, figures.ttft.smallest, figures.ttft.largest) == (1.25, 1.0, 1.5)
    assert figures.token_time is not None
    assert figures.token_time.mean == 0.5  # two seconds for the four tokens after the first
    assert figures.gaps is not None
    assert figures.gaps.mean == 1.0
    assert figures.request_time is not None
    assert figures.request_time.largest == 3.5
    assert figures.output_rate == pytest.approx(6 / 3.5)


def test_nothing_measured_has_no_figures() -> None:
    """No samples: no distribution, and rates of zero instead of a division by zero."""
    figures = summarise([], 1)

    assert figures.ttft is None
    assert (figures.output_rate, figures.total_rate, figures.request_rate) == (0, 0, 0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_in_order_and_within_range(values: list[float]) -> None:
    """Percentiles never leave the range of the values, and grow with their share."""
    found = distribution(values)

    assert found is not None
    shares = list(found.percentiles.values())
    assert shares == sorted(shares)
    assert min(values) <= shares[0]
    assert shares[-1] <= max(values)


def test_percentile_lies_between_its_neighbours() -> None:
    """The median of an even number of values is their middle."""
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.5
    assert percentile([7.0], 99) == 7.0


@given(fixed=st.integers(0, 500), each=st.integers(1, 8), tokens=st.integers(1, 100_000))
def test_word_cost_meets_the_wanted_length(fixed: int, each: int, tokens: int) -> None:
    """For a model with a constant cost per word the prompt misses the wanted length by less than a word."""
    cost = WordCost.from_probes((fixed + each * PROBE_WORDS[0], fixed + each * PROBE_WORDS[1]))
    words = cost.words(tokens)

    assert words == 1 or abs(fixed + each * words - tokens) <= each
