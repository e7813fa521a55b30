"""One renderer of the chart for all tests of a run."""

from __future__ import annotations

import os

import pytest

from tests.helm.chart import Renderer


@pytest.fixture(scope="session")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """Return the renderer; its answers lie where the other test processes find them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "helm"
    folder.mkdir(exist_ok=True)
    return Renderer(folder)
