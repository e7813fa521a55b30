"""The private folder of a run where the disk does not play along."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from launcher.cache.tokenizers import rebuilt_tokenizer
from launcher.errors import ExitCode, LaunchError
from launcher.workspace import Workspace

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"


def test_no_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a read-only root and nothing mounted at /tmp: one line with what helps, and no fault of ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))

    with pytest.raises(LaunchError, match="no writable folder for temporary files: No such file") as caught:
        Workspace.create()
    assert caught.value.code is ExitCode.CANNOT_START
    assert "--tmpfs /tmp" in caught.value.remedy


def test_a_phase_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk, or a cleaner of temporary files, must not end a server that runs."""
    Workspace(tmp_path / "gone").write_phase("ready")

    assert "the phase ready cannot be written" in caplog.text


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    """A rebuilt tokenizer has no place there: the cache's own status, not that of a damaged model."""
    (tmp_path / "file").touch()

    with pytest.raises(LaunchError) as caught:
        rebuilt_tokenizer(DEMO / "model.gguf", tmp_path / "file")
    assert caught.value.code is ExitCode.CACHE_NOT_WRITABLE
