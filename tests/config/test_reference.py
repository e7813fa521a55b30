"""The configuration page is generated from the code and complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import reference
from config.environment import SPECIAL
from config.known import ALIASES, FOREIGN, NOT_SUPPORTED, UNTOUCHED
from config.settings import variables


def test_page_is_up_to_date() -> None:
    """docs/configuration.md is what the code says now."""
    assert reference.TARGET.read_text(encoding="utf-8") == reference.render()


@pytest.mark.parametrize("name", sorted({*variables(), *ALIASES, *NOT_SUPPORTED, *FOREIGN, *UNTOUCHED}))
def test_page_names_every_variable(name: str) -> None:
    """No variable is left out."""
    assert f"| `{name}` |" in reference.render()


@pytest.mark.parametrize("name", SPECIAL)
def test_page_explains_the_variables_that_hold_settings(name: str) -> None:
    """The file and the engine's old way are named in the introduction."""
    assert f"`{name}`" in reference.HEAD


def test_check_fails_on_an_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--check`` changes nothing and fails when the page differs."""
    page = tmp_path / "configuration.md"
    page.write_text("old")
    monkeypatch.setattr(reference, "TARGET", page)
    monkeypatch.setattr("sys.argv", ["config.reference", "--check"])

    assert reference.main() == 1
    assert page.read_text() == "old"


def test_writing_brings_the_page_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``--check`` the page is written, and a check passes then."""
    monkeypatch.setattr(reference, "TARGET", tmp_path / "configuration.md")
    monkeypatch.setattr("sys.argv", ["config.reference"])
    assert reference.main() == 0

    monkeypatch.setattr("sys.argv", ["config.reference", "--check"])

    assert reference.main() == 0
