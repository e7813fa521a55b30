"""Values that cannot work are refused before anything reaches the cluster, with a message that says what to do."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.helm.chart import HERE, NEWEST, Renderer

REFUSED: dict[str, Any] = yaml.load((HERE / "refused.yaml").read_text(), yaml.CSafeLoader)


@pytest.mark.parametrize("name", REFUSED)
def test_values_are_refused(renderer: Renderer, name: str) -> None:
    """A misspelt or contradictory value ends the installation and is named."""
    case = REFUSED[name]
    answer = renderer.render(case["values"], kubernetes=case.get("kubernetes", NEWEST))

    assert answer.code != 0
    assert case["says"] in answer.errors


def test_all_contradictions_are_named_at_once(renderer: Renderer) -> None:
    """Nobody has to find them one by one."""
    values = {"persistence": {"enabled": True}, "hostPath": {"enabled": True}, "keda": {"enabled": True}}
    answer = renderer.render(values)

    lines = [line for line in answer.errors.splitlines() if line.startswith("- ")]
    assert len(lines) == 2
    assert "These values cannot be used:" in answer.errors
