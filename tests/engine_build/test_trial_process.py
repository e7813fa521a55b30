"""Processes of a build: their progress is passed on, and those that fail, crash or hang are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.runtime import EngineRuntime
from engine_build.errors import TrialError
from engine_build.trial import TrialJob
from engine_build.trial_process import run_module, run_trial

TOLD = """
import json, sys
print("a library says something")
for done in (1, 2):
    print(json.dumps({"trial": "counting", "done": done, "total": 2}))
print('{"trial": "cut')
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what makes a module of a text, for ``python -m``."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(text: str) -> str:
        (tmp_path / "an_engine.py").write_text(text)
        return "an_engine"

    return make


def test_progress_is_passed_on_and_other_lines_are_not(program) -> None:
    """What libraries print does not disturb, nor does a line that is cut."""
    told: list[tuple[str, int, int]] = []

    run_module(program(TOLD), [], ({}, 60.0), lambda *each: told.append(each))

    assert told == [("counting", 1, 2), ("counting", 2, 2)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.stderr.write('noise\\ntrial: the model is damaged\\n'); sys.exit(1)", "the model is damaged"),
        ("import os; os.kill(os.getpid(), 11)", "ended with status -11"),
        ("raise RuntimeError('out of GPUs')", "RuntimeError: out of GPUs"),
    ],
    ids=["failed", "crashed", "raised"],
)
def test_a_failure_has_its_last_words(program, text: str, words: str) -> None:
    """The reason is in the error, as far as the process gave one."""
    with pytest.raises(TrialError) as caught:
        run_module(program(text), [], ({}, 60.0), lambda *_: None)

    assert words in caught.value.message


def test_a_process_that_hangs_is_ended(program) -> None:
    """After its time it is killed, and that is what is said."""
    with pytest.raises(TrialError, match="took longer than 1 s"):
        run_module(program("import threading; threading.Event().wait()"), [], ({}, 1.0), lambda *_: None)


def test_variables_reach_the_process(program, tmp_path: Path) -> None:
    """Caches are named in the environment, which has to be there before anything is imported."""
    text = f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(os.environ['TRITON_CACHE_DIR'])"

    run_module(program(text), [], ({"TRITON_CACHE_DIR": "/somewhere"}, 60.0), lambda *_: None)

    assert (tmp_path / "seen").read_text() == "/somewhere"


def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    """A real trial with a file that is no model: one sentence that names it."""
    (tmp_path / "model.gguf").write_text("no")
    runtime = EngineRuntime(
        model_path=tmp_path / "model.gguf", tokenizer_path=tmp_path / "none", endpoint="unix:unused", context_tokens=64
    )
    with pytest.raises(TrialError, match=r"model\.gguf is not a GGUF file"):
        run_trial(TrialJob(runtime=runtime, result=tmp_path / "r.result.json"), {}, 60.0, lambda *_: None)
