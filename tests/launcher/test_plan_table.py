"""The tables in docs/profiles.md and docs/operations.md are what the plan says today."""

from __future__ import annotations

from launcher.plan.result import Refusal
from launcher.plan.table import Row, render_table
from tests.launcher import profile_table, sizing_table
from tests.launcher.systems import names


def test_documented_table_is_up_to_date() -> None:
    """Every described system stands in the document with the plan that it gets."""
    text = profile_table.PAGE.read_text(encoding="utf-8")

    assert profile_table.expected_page(text) == text, "run: python -m tests.launcher.profile_table"
    assert len(names()) >= 25


def test_documented_sizes_are_up_to_date() -> None:
    """Common GPUs stand in the document with what they have room for."""
    text = sizing_table.PAGE.read_text(encoding="utf-8")

    assert sizing_table.expected_page(text) == text, "run: python -m tests.launcher.sizing_table"


def test_refusal_is_a_row_with_its_reason() -> None:
    """A machine on which nothing runs is not left out."""
    refusal = Refusal("too small", "buy memory")

    (line,) = render_table([Row("a | b", refusal, refusal)]).splitlines()[2:]

    assert line == "| a / b | refused | - | refused | - | too small |"
