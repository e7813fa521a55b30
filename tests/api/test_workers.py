"""Several API processes on one port: they share the work and the counting, and none of them is missed."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from api.__main__ import _options
from config.runtime import ApiRuntime
from config.settings import Settings
from launcher.supervision.process import Command
from tests.api.scraping import scrape, scrape_until, settled
from tests.conftest import Product, StartProduct
from tests.fakes.processes import wait_until

WORKERS = 2
NAMES = {f"api-{number + 1}" for number in range(WORKERS)}
ASK: list[Any] = [{"role": "user", "content": "verysecretquestion"}]
SUCCESS = ("gemma4_nim_requests_total", {"dialect": "chat", "outcome": "success"})


@pytest.fixture(scope="module")
def crowd(start_product: StartProduct) -> Iterator[Product]:
    """Start a product with two API processes that log JSON."""
    with start_product(NIM_API_WORKERS=str(WORKERS), NIM_JSONL_LOGGING="1") as product:
        _wait_for_all(product)
        yield product


def _ask(product: Product, **body: Any) -> requests.Response:
    """Ask on a connection of its own, which any of the processes may accept."""
    body = {"messages": ASK, "max_tokens": 4, **body}
    stream = bool(body.get("stream"))
    return requests.post(f"{product.base_url}/v1/chat/completions", json=body, timeout=60, stream=stream)


def _ask_at_once(product: Product, count: int = 8) -> set[int]:
    """Ask several times side by side and return the statuses."""
    with ThreadPoolExecutor(count) as threads:
        return {answer.status_code for answer in threads.map(lambda _: _ask(product), range(count))}


def _ask_many(product: Product) -> None:
    assert _ask_at_once(product) == {200}


def _wait_for_all(product: Product) -> None:
    """Wait until every process has answered: ready is what one of them says, and another may know of no engine yet."""
    before = Counter(line["process"] for line in _answers(product))

    def have_answered() -> bool:
        _ask_at_once(product)
        now = Counter(line["process"] for line in _answers(product))
        return all(now[name] > before[name] for name in NAMES)

    wait_until(have_answered, what="answers of every process")


def _access_lines(product: Product) -> list[dict[str, Any]]:
    # The last line may be one that is being written.
    whole = [line for line in product.log().splitlines(keepends=True) if line.endswith("\n")]
    lines = [json.loads(line) for line in whole if line.startswith("{")]
    return [line for line in lines if line.get("logger") == "api.access"]


def _answers(product: Product) -> list[dict[str, Any]]:
    return [line for line in _access_lines(product) if (line["method"], line["status"]) == ("POST", 200)]


def _served_by_all(product: Product) -> bool:
    """Let them answer, and tell whether every process has done so by now."""
    _ask_many(product)
    return {line["process"] for line in _answers(product)} == NAMES


def test_all_serve_and_each_tells_the_sums(crowd: Product) -> None:
    """Connections reach every process, and whichever is scraped knows what all have counted."""
    assert len(crowd.children("api")) == WORKERS
    wait_until(lambda: _served_by_all(crowd), what="answers of every process")
    counted = settled(crowd.base_url).value(SUCCESS[0], **SUCCESS[1])
    pages = [scrape(crowd.base_url) for _ in range(8)]

    assert {page.value(SUCCESS[0], **SUCCESS[1]) for page in pages} == {counted}
    assert {page.value("gemma4_nim_time_to_first_token_seconds_count") for page in pages} == {counted}
    wait_until(lambda: len(_answers(crowd)) == counted, what="a log line for each answer")
    assert all(page.value("gemma4_nim_http_requests_in_flight") >= 1 for page in pages)


def test_one_that_crashes_is_started_again_alone(crowd: Product) -> None:
    """The others go on, what it had counted stays, and the crash is counted."""
    _ask_many(crowd)
    before = settled(crowd.base_url)
    counted = before.value(SUCCESS[0], **SUCCESS[1])
    assert counted >= 8
    # What is killed has nothing left to do, not even to log.
    wait_until(lambda: len(_answers(crowd)) == counted, what="a log line for each answer")
    pids = set(crowd.children("api"))
    engine = crowd.children("engine")
    environment = Path(f"/proc/{min(pids)}/environ").read_bytes().decode().split("\0")
    folder = Path(dict(item.split("=", 1) for item in environment if item)["PROMETHEUS_MULTIPROC_DIR"])
    os.kill(min(pids), signal.SIGKILL)
    wait_until(lambda: min(pids) not in crowd.children("api"), what="the end of a process")
    after = scrape_until(
        crowd.base_url, "gemma4_nim_process_restarts_total",
        before.value("gemma4_nim_process_restarts_total", process="api") + 1, process="api",
    )  # fmt: skip
    wait_until(lambda: len(crowd.children("api")) == WORKERS, what="a new process")
    _wait_for_all(crowd)

    assert after.value(SUCCESS[0], **SUCCESS[1]) >= before.value(SUCCESS[0], **SUCCESS[1])
    assert pids - set(crowd.children("api")) == {min(pids)}
    assert crowd.children("engine") == engine
    assert after.value("gemma4_nim_http_requests_in_flight") >= 1
    assert len(list(folder.glob("counter_*.db"))) == WORKERS


def test_access_log_is_json_without_prompts(crowd: Product) -> None:
    """A line has the facts of its request under keys of their own, and nothing that was said."""
    request_id = _ask(crowd).headers["x-request-id"]
    wait_until(lambda: any(line["request_id"] == request_id for line in _access_lines(crowd)), what="the log line")
    line = next(line for line in _access_lines(crowd) if line["request_id"] == request_id)

    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert line["prompt_tokens"] > 0
    assert line["completion_tokens"] == 4
    assert line["duration_ms"] > 0
    assert "verysecret" not in crowd.log()


@pytest.mark.slow
def test_all_finish_their_requests_at_the_stop(start_product: StartProduct) -> None:
    """On SIGTERM every process ends its running answers; then all are gone and the status is 0."""
    variables = {"NIM_API_WORKERS": str(WORKERS), "NIM_SHUTDOWN_GRACE_SECONDS": "60", "NIM_JSONL_LOGGING": "1"}
    with start_product(**variables) as product:
        assert product.process is not None
        _wait_for_all(product)
        with ExitStack() as streams:
            body = {"stream": True, "max_tokens": 300, "ignore_eos": True}
            answers = [streams.enter_context(_ask(product, **body)).iter_lines() for _ in range(4)]
            assert all(next(answer) for answer in answers)
            product.process.terminate()
            ends = [[line for line in answer if line][-2:] for answer in answers]
        assert all(b'"finish_reason":"length"' in event and end == b"data: [DONE]" for event, end in ends)
        assert product.process.wait(100) == 0
        assert not product.children("api")


def test_limits_hold_for_all_processes_together(scripted_runtime: ApiRuntime) -> None:
    """Each process has its share of what the settings allow, and at least one of everything."""
    settings = Settings()
    media = settings.media.model_copy(update={"decoders": 4, "image_cache_bytes": 1000})
    fetch = settings.fetch.model_copy(update={"max_parallel": 3})

    def share(workers: int) -> tuple[int, int, int, int]:
        processes = settings.processes.model_copy(update={"workers": workers})
        parts = {"media": media, "fetch": fetch, "processes": processes}
        options = _options(settings.model_copy(update=parts), scripted_runtime)
        limits = options.fetch_limits
        return options.decoders.processes, limits.max_parallel, limits.max_waiting, options.image_cache_bytes

    assert share(1) == (4, 3, 12, 1000)
    assert share(2) == (2, 1, 4, 500)
    assert share(8) == (1, 1, 4, 125)


@pytest.fixture
def scripted_runtime(tmp_path: Any) -> ApiRuntime:
    """Return what a launcher would hand over."""
    return ApiRuntime(
        engine_endpoints=("unix:/nowhere",), tokenizer_path=tmp_path / "tokenizer.json", served_names=("m",), created=0
    )


def test_each_process_is_told_its_number() -> None:
    """One alone is called as before; of several each has its number."""
    command = Command("api", ("python", "-m", "api"), {})

    assert command.each() == [command]
    assert [(each.name, each.arguments[-2:]) for each in replace(command, copies=2).each()] == [
        ("api-1", ("--worker", "1")),
        ("api-2", ("--worker", "2")),
    ]
