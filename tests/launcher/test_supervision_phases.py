"""How far a start is: from downloads, from the files that a process loads, and how often that is told."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from launcher.download.progress import DownloadState
from launcher.download.progress import Phase as DownloadPhase
from launcher.supervision.load_progress import LoadProgress
from launcher.supervision.phases import TELL_EVERY_S, WRITE_EVERY_S, Phases

MIB = 2**20


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.now = 100.0

    def write_phase(self, phase: str, **facts: Any) -> None:
        self.written.append({"phase": phase, **facts})

    def phase(self, phase: str, facts: Any) -> None:
        self.told.append(f"{phase} {facts.get('bytes_done')}")

    def phases(self) -> Phases:
        return Phases(self, self, lambda: self.now)


def test_each_phase_is_written_and_told_at_once() -> None:
    """Nobody waits to learn that something new begins."""
    recorder = Recorder()
    phases = recorder.phases()

    phases.enter("loading", why="x")
    phases.progress("downloading", 1, 10)

    assert recorder.written == [
        {"phase": "loading", "why": "x"},
        {"phase": "downloading", "bytes_done": 1, "bytes_total": 10},
    ]
    assert recorder.told == ["loading None", "downloading 1"]
    assert phases.current == recorder.written[-1]


def test_time_left_follows_from_the_time_it_took() -> None:
    """A quarter done after ten seconds leaves thirty."""
    recorder = Recorder()
    phases = recorder.phases()
    phases.progress("loading", 0, 100)
    recorder.now += 10

    phases.progress("loading", 25, 100)

    assert phases.current["eta_seconds"] == 30


def test_download_brings_its_own_figures() -> None:
    """Rate, time left and note go into ready's body; the end of the download is not the end of the start."""
    recorder = Recorder()
    phases = recorder.phases()
    phases.update(DownloadState(DownloadPhase.DOWNLOADING, 5, 10, rate=1000.4, eta_s=3.6, note="waits"))
    recorder.now += 1
    phases.update(DownloadState(DownloadPhase.DONE, 10, 10))

    assert recorder.written[0] == {
        "phase": "downloading", "bytes_done": 5, "bytes_total": 10, "eta_seconds": 4, "bytes_per_second": 1000,
        "note": "waits",
    }  # fmt: skip
    assert recorder.written[-1]["phase"] == "checking"


@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=60))
def test_progress_is_neither_written_nor_told_too_often(pauses: list[float]) -> None:
    """However often a source reports, the file and the log see it in measure."""
    recorder = Recorder()
    phases = recorder.phases()
    for number, pause in enumerate(pauses):
        recorder.now += pause
        phases.progress("downloading", number, None)

    passed = sum(pauses)
    assert len(recorder.written) <= passed / WRITE_EVERY_S + 1
    assert len(recorder.told) <= passed / TELL_EVERY_S + 1


def test_last_byte_is_always_written() -> None:
    """Progress does not stay at 99 percent."""
    recorder = Recorder()
    phases = recorder.phases()
    for done in range(11):
        phases.progress("loading", done, 10)

    assert phases.current["bytes_done"] == 10


def _file(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.write_bytes(b"x" * size)
    return path


def test_mapped_bytes_count(tmp_path: Path) -> None:
    """A process that maps its model has loaded what is resident."""
    path = _file(tmp_path, "model.gguf", 4 * MIB)
    progress = LoadProgress(os.getpid(), (path,))
    assert progress.total() == 4 * MIB
    assert progress.done() == 0

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        half = sum(mapped[at] for at in range(0, 2 * MIB, 4096))
        touched = progress.done()
        whole = sum(mapped[at] for at in range(0, 4 * MIB, 4096))
        done = progress.done()

    assert half < whole
    assert 2 * MIB <= touched <= done == 4 * MIB


def test_read_bytes_count(tmp_path: Path) -> None:
    """A process that reads its model has loaded up to where it stands."""
    first, second = _file(tmp_path, "a.gguf", 3 * MIB), _file(tmp_path, "b.gguf", MIB)
    progress = LoadProgress(os.getpid(), (first, second))

    with first.open("rb", buffering=0) as file:
        file.read(2 * MIB)

        assert progress.done() == 2 * MIB


def test_bytes_of_a_childs_child_count(tmp_path: Path) -> None:
    """An engine may leave the loading to processes of its own."""
    path = _file(tmp_path, "a.gguf", 2 * MIB)
    program = f"import sys; file = open({str(path)!r}, 'rb', 0); file.read({MIB}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        done = LoadProgress(os.getpid(), (path,)).done()
        child.communicate(b"")

    assert done == MIB


def test_what_cannot_be_seen_counts_as_nothing(tmp_path: Path) -> None:
    """A process that is gone, or a file, is no error."""
    path = _file(tmp_path, "model.gguf", MIB)

    assert LoadProgress(2**22, (path, tmp_path / "absent")).done() == 0
    assert LoadProgress(os.getpid(), (tmp_path / "absent",)).total() == 0


def test_restarts_are_kept_through_all_phases() -> None:
    """How often which process was started again stands beside whatever phase follows."""
    recorder = Recorder()
    phases = recorder.phases()
    phases.enter("loading", bytes_done=1)
    assert "restarts" not in recorder.written[-1]

    phases.note_restart("engine")
    assert recorder.written[-1] == {"phase": "loading", "bytes_done": 1, "restarts": {"engine": 1}}
    phases.note_restart("engine")
    phases.note_restart("api")
    phases.enter("ready")
    assert recorder.written[-1] == {"phase": "ready", "restarts": {"engine": 2, "api": 1}}
