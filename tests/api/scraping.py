"""Reads a server's metrics as Prometheus does, for tests that compare before and after."""

from __future__ import annotations

from dataclasses import dataclass

import requests
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.processes import wait_until


@dataclass(frozen=True)
class Page:
    """One scrape."""

    families: dict[str, Metric]

    def value(self, sample: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels; 0 when there are none."""
        return sum(
            found.value
            for family in self.families.values()
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def has(self, sample: str) -> bool:
        """Tell whether any sample has this name."""
        return any(found.name == sample for family in self.families.values() for found in family.samples)


def scrape(base_url: str, path: str = "/metrics") -> Page:
    """Return what the server tells now."""
    response = requests.get(f"{base_url}{path}", timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Page({family.name: family for family in text_string_to_metric_families(response.text)})


def settled(base_url: str) -> Page:
    """Return a scrape at a moment when nothing else is being answered, so that every earlier request is counted."""
    pages: list[Page] = []

    def is_quiet() -> bool:
        pages.append(scrape(base_url))
        return pages[-1].value("gemma4_nim_http_requests_in_flight") == 1

    wait_until(is_quiet, what="the end of all other requests")
    return pages[-1]


def scrape_until(base_url: str, sample: str, value: float, **labels: str) -> Page:
    """Return the first scrape in which a sample has at least this value: a request is counted after its answer."""
    pages: list[Page] = []

    def is_there() -> bool:
        pages.append(scrape(base_url))
        return pages[-1].value(sample, **labels) >= value

    wait_until(is_there, what=f"{sample} {labels} of {value}")
    return pages[-1]
