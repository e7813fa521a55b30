"""Places for fetches: so many at a time, and one site never has them all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from api.errors import OverloadedError
from api.media.fetch import FetchLimits, UrlFetcher
from api.media.fetch_places import FetchPlaces, PlaceLimits, site
from api.media.fetch_policy import FetchPolicy
from api.media.fetch_target import parse_target

SLOW = parse_target("http://slow.example/")
OTHER = parse_target("http://other.example.org/")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(scenario(), 60))  # type: ignore[arg-type]


def test_one_site_has_half_of_the_places() -> None:
    """However many fetches one slow site is asked for, another one is fetched from at once."""

    async def scenario() -> None:
        places = FetchPlaces(PlaceLimits(parallel=4, waiting=8, timeout_s=10))
        gate, entered = asyncio.Event(), []

        async def fetch(number: int) -> None:
            async with places.take(SLOW, is_shared=True):
                entered.append(number)
                await gate.wait()

        slow = [asyncio.create_task(fetch(number)) for number in range(6)]
        async with asyncio.timeout(60), places.take(OTHER, is_shared=True), places.take(OTHER, is_shared=True):
            await asyncio.sleep(0)
            assert entered == [0, 1]
            gate.set()
            await asyncio.gather(*slow)
        assert entered == list(range(6))
        assert not places._sites

    run(scenario)


def test_one_site_has_half_of_the_queue() -> None:
    """When as many wait for one site as may, one more is refused, and one for another site is not."""

    async def scenario() -> None:
        places = FetchPlaces(PlaceLimits(parallel=2, waiting=4, timeout_s=10))
        gate = asyncio.Event()

        async def fetch() -> None:
            async with places.take(SLOW, is_shared=True):
                await gate.wait()

        tasks = [asyncio.create_task(fetch()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await fetch()
        async with places.take(OTHER, is_shared=True):
            gate.set()
        await asyncio.gather(*tasks)

    run(scenario)


def test_site_without_a_limit_has_all_places() -> None:
    """What is not to share may use every place, and then waits for one until its time is over."""

    async def scenario() -> None:
        places = FetchPlaces(PlaceLimits(parallel=3, waiting=4, timeout_s=0.05))
        async with AsyncExitStack() as held:
            for _ in range(3):
                await held.enter_async_context(places.take(SLOW, is_shared=False))
            with pytest.raises(OverloadedError):
                await held.enter_async_context(places.take(OTHER, is_shared=True))
        async with places.take(OTHER, is_shared=True):
            assert places._sites.keys() == {"example.org"}
        assert not places._sites

    run(scenario)


@pytest.mark.parametrize(("allowed", "wanted"), [((), 2), (("*",), 2), (("slow.example",), 4)])
def test_only_hosts_of_the_list_may_use_all_places(allowed: tuple[str, ...], wanted: int) -> None:
    """A host that the operator names is not held to its share; any other is."""

    async def scenario() -> None:
        asked = 0

        async def resolve(_host: str, _port: int) -> list[str]:
            nonlocal asked
            asked += 1
            await asyncio.Event().wait()
            return []

        fetcher = UrlFetcher(FetchPolicy(allowed), FetchLimits(max_parallel=4, max_waiting=16), resolve=resolve)
        tasks = [asyncio.create_task(fetcher.fetch(SLOW)) for _ in range(8)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked == wanted
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://example.com/", "example.com"),
        ("http://a.b.example.com/", "example.com"),
        ("http://localhost/", "localhost"),
        ("http://93.184.216.34/", "93.184.216.34/32"),
        ("http://[2606:2800:220:1:248:1893:25c8:1946]/", "2606:2800:220:1::/64"),
    ],
)
def test_site_is_what_one_owner_has(url: str, wanted: str) -> None:
    """Names are one site by their last two labels, addresses by the part that is given out as a whole."""
    assert site(parse_target(url)) == wanted
