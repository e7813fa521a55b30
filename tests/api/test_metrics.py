"""Metrics of a running server: what requests add to them, under our names and those of NIM 1.x and vLLM."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from api.telemetry.exposition import Scene, exposition
from api.telemetry.families import observe
from api.telemetry.record import Picture, RequestRecord
from api.telemetry.slots import take_slot
from engine.core import EngineDelta, EngineLimits, EngineReport, EngineRequest, EngineStats
from engine.errors import EngineError, QueueFullError
from engine.wire import encode_stats
from tests.api.conftest import MODEL, ScriptedServer
from tests.api.scraping import Page, scrape, scrape_until, settled
from tests.conftest import Product
from tests.fakes.pictures import data_url, plain

ASK: list[Any] = [{"role": "user", "content": "Hi"}]
SUCCESS = ("gemma4_nim_requests_total", {"dialect": "chat", "outcome": "success"})


def _added(before: Page, after: Page, sample: str, **labels: str) -> float:
    return after.value(sample, **labels) - before.value(sample, **labels)


def _scraped_after(server: ScriptedServer, before: Page) -> Page:
    """Return a scrape that has one more successful request than ``before``."""
    return scrape_until(server.base_url, SUCCESS[0], before.value(SUCCESS[0], **SUCCESS[1]) + 1, **SUCCESS[1])


@pytest.mark.parametrize("stream", [False, True])
def test_request_is_counted_with_its_tokens_and_times(server: ScriptedServer, *, stream: bool) -> None:
    """A successful answer adds its tokens, its finish reason and one observation of each time."""
    server.reply("Hello you<turn|>")
    before = settled(server.base_url)
    response = server.post({"messages": ASK, "stream": stream, "stream_options": {"include_usage": True}})
    assert response.status_code == 200
    prompt, completion = (
        int(re.findall(rf'"{name}_tokens":(\d+)', response.text)[-1]) for name in ("prompt", "completion")
    )
    after = _scraped_after(server, before)

    assert _added(before, after, "gemma4_nim_prompt_tokens_total") == prompt
    assert _added(before, after, "gemma4_nim_generation_tokens_total") == completion
    assert _added(before, after, "gemma4_nim_cached_prompt_tokens_total") == 3
    assert _added(before, after, "gemma4_nim_finished_sequences_total", dialect="chat", finish_reason="stop") == 1
    assert _added(before, after, "gemma4_nim_inter_token_latency_seconds_count") == completion - 1
    for histogram in (
        "time_to_first_token_seconds", "request_duration_seconds", "request_generation_seconds",
        "request_preparation_seconds", "request_time_per_output_token_seconds", "request_prompt_tokens",
        "request_generation_tokens",
    ):  # fmt: skip
        assert _added(before, after, f"gemma4_nim_{histogram}_count") == 1, histogram
    route = {"route": "/v1/chat/completions", "method": "POST", "status": "200"}
    assert _added(before, after, "gemma4_nim_http_requests_total", **route) == 1


def test_aliases_tell_the_same(server: ScriptedServer) -> None:
    """What dashboards of NIM 1.x and vLLM read has the values of our own families, and the model's name."""
    server.post({"messages": ASK})
    page = _scraped_after(server, Page({}))

    for alias, own in (
        ("prompt_tokens_total", "prompt_tokens_total"),
        ("vllm:generation_tokens_total", "generation_tokens_total"),
        ("vllm:prefix_cache_hits_total", "cached_prompt_tokens_total"),
        ("time_to_first_token_seconds_count", "time_to_first_token_seconds_count"),
        ("vllm:e2e_request_latency_seconds_sum", "request_duration_seconds_sum"),
        ("vllm:inter_token_latency_seconds_count", "inter_token_latency_seconds_count"),
        ("num_request_max", "engine_max_sequences"),
    ):
        assert page.value(alias, model_name=MODEL) == page.value(f"gemma4_nim_{own}"), alias
    stops = page.value("gemma4_nim_finished_sequences_total", finish_reason="stop")
    calls = page.value("gemma4_nim_finished_sequences_total", finish_reason="tool_calls")
    assert page.value("vllm:request_success_total", finished_reason="stop") == stops + calls
    assert page.value("request_success_total") == page.value(SUCCESS[0], **SUCCESS[1])


def test_what_the_engine_cannot_tell_is_absent(server: ScriptedServer) -> None:
    """This engine knows nothing of its cache: no figure is better than a wrong 0."""
    page = scrape_until(server.base_url, "gemma4_nim_engine_up", 1)

    for name in ("gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "gemma4_nim_engine_kv_cache_usage_ratio"):
        assert not page.has(name)


def test_both_paths_and_both_formats(server: ScriptedServer) -> None:
    """``/metrics`` and ``/v1/metrics`` are one page; a scraper that asks for OpenMetrics gets it, a broken one text."""
    names = scrape(server.base_url).families.keys()
    assert scrape(server.base_url, "/v1/metrics").families.keys() == names

    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.1"
    response = requests.get(f"{server.base_url}/metrics", headers={"accept": accept}, timeout=60)
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in read_openmetrics(response.text)} >= {"gemma4_nim_requests", "vllm:prompt_tokens"}

    broken = {"accept": "application/openmetrics-text;version=many"}
    response = requests.get(f"{server.base_url}/metrics", headers=broken, timeout=60)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(QueueFullError("full"), "429", "queue_full"), (EngineError("x"), "500", "engine_error")],
)
def test_failure_is_counted_by_its_code(server: ScriptedServer, error: EngineError, status: str, code: str) -> None:
    """A request that fails is an error with the code of its body, and no success."""
    before = settled(server.base_url)
    server.core.script = lambda _request: [error]
    assert server.post({"messages": ASK}).status_code == int(status)
    labels = {"dialect": "chat", "outcome": "error", "code": code}
    counter = "gemma4_nim_requests_total"
    after = scrape_until(server.base_url, counter, before.value(counter, **labels) + 1, **labels)

    assert _added(before, after, SUCCESS[0], **SUCCESS[1]) == 0
    assert _added(before, after, "request_failure_total") == 1
    assert _added(before, after, "gemma4_nim_http_requests_total", status=status) == 1
    assert _added(before, after, "gemma4_nim_time_to_first_token_seconds_count") == 0


def test_failure_in_the_middle_of_a_stream_is_counted(server: ScriptedServer) -> None:
    """The status was 200, but the answer is an error; its tokens count."""
    before = settled(server.base_url)

    def script(request: EngineRequest) -> Iterator[EngineDelta | EngineError]:
        yield server.deltas(request, "Hi")[0]
        yield EngineError("lost")

    server.core.script = script
    assert server.events({"messages": ASK})[-1] == "[DONE]"
    labels = {"dialect": "chat", "outcome": "error", "code": "engine_error"}
    counter = "gemma4_nim_requests_total"
    after = scrape_until(server.base_url, counter, before.value(counter, **labels) + 1, **labels)

    assert _added(before, after, "gemma4_nim_generation_tokens_total") == 1
    assert _added(before, after, "gemma4_nim_request_duration_seconds_count") == 0


def test_running_and_abandoned_requests(server: ScriptedServer) -> None:
    """While an answer is generated it is running; a client that leaves makes it a cancelled one."""
    before = settled(server.base_url)
    gate = threading.Event()
    server.core.script = lambda request: [server.deltas(request, "Hi there")[0], gate]
    with server.post({"messages": ASK, "stream": True}, stream=True) as response:
        pieces = response.iter_content(16)
        next(pieces)
        during = scrape_until(server.base_url, "vllm:num_requests_running", 1)
        assert during.value("gemma4_nim_http_requests_in_flight") >= 2
        # Its token is counted while it runs.
        generated = before.value("gemma4_nim_generation_tokens_total")
        scrape_until(server.base_url, "gemma4_nim_generation_tokens_total", generated + 1)
    labels = {"dialect": "chat", "outcome": "cancelled"}
    counter = "gemma4_nim_requests_total"
    after = scrape_until(server.base_url, counter, before.value(counter, **labels) + 1, **labels)
    gate.set()

    assert _added(before, after, SUCCESS[0], **SUCCESS[1]) == 0
    assert _added(before, after, "gemma4_nim_generation_tokens_total") == 1


def test_strangers_make_no_series(server: ScriptedServer) -> None:
    """Unknown paths and methods share one label, whatever they are."""
    before = settled(server.base_url)
    for path in ("/a", "/b", "/v1/secret-name"):
        assert requests.get(server.base_url + path, timeout=60).status_code == 404
    requests.request("PROPFIND", f"{server.base_url}/pot", timeout=60)
    counter = "gemma4_nim_http_requests_total"
    page = scrape_until(server.base_url, counter, before.value(counter, route="other") + 4, route="other")

    labels = {name for sample in page.families["gemma4_nim_http_requests"].samples for name in sample.labels.values()}
    assert not {"/a", "/b", "/v1/secret-name", "/pot", "PROPFIND"} & labels


def test_pictures_are_counted_by_source_and_outcome(server: ScriptedServer) -> None:
    """A picture is decoded once and then found in the cache; one that is no picture is refused."""
    before = settled(server.base_url)
    # Another test may have sent any fixed picture already.
    colour = (time.time_ns() % 251, time.time_ns() // 251 % 251, 7)
    for data in (plain(colour), plain(colour), b"no picture"):
        part = {"type": "image_url", "image_url": {"url": data_url(data)}}
        server.post({"messages": [{"role": "user", "content": [part]}]})
    counter = "gemma4_nim_images_total"
    refused = {"source": "inline", "outcome": "refused"}
    after = scrape_until(server.base_url, counter, before.value(counter, **refused) + 1, **refused)

    assert _added(before, after, counter, source="inline", outcome="used") == 1
    assert _added(before, after, counter, source="inline", outcome="cached") == 1
    assert _added(before, after, "gemma4_nim_image_decode_seconds_count") == 1
    assert _added(before, after, "gemma4_nim_image_tokens_total") > 0


def test_real_engine_tells_its_cache_and_queue(product: Product) -> None:
    """The engine that the launcher starts tells of its KV cache, its queue, and what grammars and pictures took."""
    before = settled(product.base_url)
    model = product.client.models.list().data[0].id
    part = {"type": "image_url", "image_url": {"url": data_url(plain())}}
    asks: list[Any] = [{"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}]
    json_object: Any = {"type": "json_object"}
    product.client.chat.completions.create(model=model, messages=asks, max_tokens=3, response_format=json_object)
    scrape_until(product.base_url, SUCCESS[0], before.value(SUCCESS[0], **SUCCESS[1]) + 1, **SUCCESS[1])
    # A page holds nothing of an engine that takes seconds to answer, as it may on a busy machine.
    page = scrape_until(product.base_url, "gemma4_nim_engine_kv_cache_tokens", 1)

    assert page.has("gpu_cache_usage_perc")
    assert 0 <= page.value("vllm:kv_cache_usage_perc") <= 1
    for summary in ("queue", "grammar_compile", "image_encode"):
        assert _added(before, page, f"gemma4_nim_engine_{summary}_seconds_count") >= 1, summary
        assert _added(before, page, f"gemma4_nim_engine_{summary}_seconds_sum") > 0, summary
    assert page.value("gemma4_nim_phase", phase="ready") == 1
    assert page.has("gemma4_nim_process_restarts_total")


def test_slot_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    """Every living process has a slot of its own; one that became free is the next one's."""
    first, second = take_slot(tmp_path), take_slot(tmp_path)
    assert (first.number, second.number) == (1, 2)

    # As when its process has ended.
    first.lock.close()
    third = take_slot(tmp_path)
    assert third.number == 1
    for slot in (second, third):
        slot.lock.close()


def _everything() -> str:
    """Return a page on which every family has a value."""
    record = RequestRecord(
        method="POST", route="/v1/chat/completions", status=200, submitted=1.0, first_token=2.0, ended=3.0, choices=1,
        finish_reasons=("stop",), prompt_tokens=10, completion_tokens=5, reasoning_tokens=1, image_tokens=1,
        cached_tokens=1, pictures=[Picture("url", 0.0, 0.1, 0.1, "used")],
    )  # fmt: skip
    observe(record)
    observe(RequestRecord(method="POST", route="/v1/chat/completions", status=400, error_code="x", choices=1))
    limits = EngineLimits(4096, 8, 8, 1000, vision=True, grammar=True, logprobs=True, core="c", model="m")
    counts = encode_stats(EngineStats(*range(len(EngineStats.__dataclass_fields__))))
    report = EngineReport("unix:/x", limits, counts)
    scene = Scene("model", "1", reports=[report], status={"phase": "ready"})
    return exposition(scene, "")[0].decode()


def test_document_lists_every_metric() -> None:
    """docs/operations.md has every family with its type, every alias with what it stands for, and none besides."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    families = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type)
        for family in read_text(_everything())
    }
    own = set(re.findall(r"^\| `(gemma4_nim_\w+)` \| (\w+) \|", text, re.MULTILINE))
    rows = re.findall(r"^\|([^|]*)\|([^|]*)\| `(gemma4_nim_\w+)[`{]", text, re.MULTILINE)
    aliases = {(name, same) for first, second, same in rows for name in re.findall(r"`([\w:]+)`", first + second)}

    assert own == {family for family in families if family[0].startswith("gemma4_nim_")}
    assert {name for name, _ in aliases} == {name for name, _ in families if not name.startswith("gemma4_nim_")}
    help_texts = dict(re.findall(r"^# HELP (\S+) The same as (\w+)", _everything(), re.MULTILINE))
    assert {name: same.removesuffix("_total") for name, same in aliases} == help_texts


def test_queries_of_the_document_work() -> None:
    """Each query is PromQL and asks for metrics that exist."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    table = text.partition("| Question | Query |")[2].partition("\n\n")[0]
    queries = re.findall(r"\| `(.+)` \|$", table, re.MULTILINE)
    samples = {sample.name for family in read_text(_everything()) for sample in family.samples}

    assert len(queries) >= 8
    for query in queries:
        promql_parser.parse(query)
        names = set(re.findall(r"gemma4_nim_\w+", query))
        assert names
        assert names <= samples, query
