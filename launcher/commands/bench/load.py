"""Keeps a server busy: so many requests at once, or so many per second, until enough have been sent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from launcher.commands.bench.prompts import PROBE_WORDS, WordCost, prompt
from launcher.commands.bench.stream_request import Sample, measure
from launcher.commands.server_client import Server, ServerError

ROUTE: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Request:
    """What every request looks like.

    Attributes:
        words: length of the prompt, in words.
        output_tokens: tokens that are generated.
        natural_end: answers may end before that.
    """

    model: str
    words: int
    output_tokens: int
    natural_end: bool

    def body(self, text: str) -> dict[str, Any]:
        """Return one request for a streamed answer to ``text``."""
        known = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return known if self.natural_end else known | {"ignore_eos": True}


@dataclass(frozen=True, slots=True)
class Level:
    """How hard the server is pressed.

    Attributes:
        concurrency: requests at the same time; with ``rate`` the most there may be.
        requests: how many are sent in all.
        seconds: no request is sent later than this; None for no such end.
        rate: requests per second, at random moments as of many independent users; None sends one when one is done.
    """

    concurrency: int
    requests: int
    seconds: float | None = None
    rate: float | None = None


async def calibrate(server: Server, model: str, source: random.Random) -> WordCost:
    """Measure how many tokens prompts have.

    Raises:
        ServerError: a request fails.
    """
    counts = []
    for words in PROBE_WORDS:
        body = Request(model, words, output_tokens=1, natural_end=True).body(prompt(source, words))
        sample = await measure(server, ROUTE, body)
        if sample.error:
            raise ServerError(sample.error)
        counts.append(sample.prompt_tokens)
    return WordCost.from_probes((counts[0], counts[1]))


class LoadRun:
    """One level's requests; ``samples`` grows while it runs, so that an interrupted run can still be summed up."""

    def __init__(self, server: Server, request: Request, level: Level, source: random.Random) -> None:
        self.samples: list[Sample] = []
        self._server = server
        self._request = request
        self._level = level
        self._source = source

    async def run(self, on_done: Callable[[Sample], None]) -> None:
        """Send everything and return when the last answer has ended; ``on_done`` gets each sample."""
        starts = self._starts()
        if self._level.rate is None:
            await asyncio.gather(*(self._worker(starts, on_done) for _ in range(self._level.concurrency)))
        else:
            await self._at_rate(starts, self._level.rate, on_done)

    def _starts(self) -> Iterator[str]:
        """Yield a prompt for each request that is to be sent, until there have been enough or it is late."""
        end = None if self._level.seconds is None else time.perf_counter() + self._level.seconds
        for _ in range(self._level.requests):
            if end is not None and time.perf_counter() > end:
                return
            yield prompt(self._source, self._request.words)

    async def _worker(self, starts: Iterator[str], on_done: Callable[[Sample], None]) -> None:
        for text in starts:
            await self._send(text, on_done)

    async def _at_rate(self, starts: Iterator[str], rate: float, on_done: Callable[[Sample], None]) -> None:
        free = asyncio.Semaphore(self._level.concurrency)

        async def send(text: str) -> None:
            try:
                await self._send(text, on_done)
            finally:
                free.release()

        async with asyncio.TaskGroup() as group:
            for text in starts:
                await free.acquire()
                group.create_task(send(text))
                await asyncio.sleep(self._source.expovariate(rate))

    async def _send(self, text: str, on_done: Callable[[Sample], None]) -> None:
        sample = await measure(self._server, ROUTE, self._request.body(text))
        self.samples.append(sample)
        on_done(sample)
