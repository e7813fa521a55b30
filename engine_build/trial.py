"""``python -m engine_build.trial --job FILE``: loads an engine, puts it through what the job says, writes a result.

Each trial is a process of its own, started by ``trial_process``: an engine that crashes takes no build with it, and the
next start is measured from nothing. Progress goes to standard output, one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from config.runtime import EngineRuntime
from engine.core import EngineCore
from engine.cores import load_core
from engine.errors import EngineError
from engine_build.answers import Answer, Answers, Position, Respondent, read_answers
from engine_build.errors import EngineBuildError
from engine_build.exercise import Exercise, WarmUp
from engine_build.questions import PromptWriter

MARK = "trial"
"""The key that tells our lines from what an engine's libraries print."""
EXIT_FAILED = 1
PR_SET_PDEATHSIG = 1


class TrialJob(BaseModel):
    """What one trial does.

    Attributes:
        runtime: the engine.
        result: where the result is written.
        warm_up: send the requests of a warm-up.
        answer: answer the questions of the gate.
        lead: answers of another model to follow; None follows nobody.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: EngineRuntime
    result: Path
    warm_up: bool = False
    answer: bool = False
    lead: Path | None = None


class TrialResult(BaseModel):
    """What came of it. ``load_s`` and ``first_token_s`` are seconds of loading and of the first request after it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    load_s: float
    first_token_s: float
    warm_up: WarmUp | None = None
    answers: tuple[Answer | None, ...] | None = None
    followed: tuple[tuple[Position, ...] | None, ...] | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process and return its exit status: 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m engine_build.trial", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON file with what to do")
    options = parser.parse_args(arguments)
    _die_with_parent()
    try:
        job = TrialJob.model_validate_json(options.job.read_bytes())
        result = asyncio.run(_run(job))
        job.result.write_text(result.model_dump_json(), encoding="utf-8")
    except (EngineError, EngineBuildError) as error:
        sys.stderr.write(f"trial: {error.message}\n")
        return EXIT_FAILED
    return 0


def _die_with_parent() -> None:
    """Ask Linux to send SIGTERM when the build dies, so that no engine stays behind and fills a GPU."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            # It died before the request took effect.
            os.kill(os.getpid(), signal.SIGTERM)


async def _run(job: TrialJob) -> TrialResult:
    _tell("loading")
    started = time.perf_counter()
    core = load_core(job.runtime)
    load_s = time.perf_counter() - started
    try:
        writer = PromptWriter(job.runtime.tokenizer_path)
        exercise = Exercise(core, writer)
        warm_up = await exercise.run(_tell) if job.warm_up else None
        first_token_s = warm_up.first_token_s if warm_up is not None else await exercise.first_token()
        answers, followed = await _answers(job, core, writer) if job.answer else (None, None)
    finally:
        await core.close()
    return TrialResult(load_s=load_s, first_token_s=first_token_s, warm_up=warm_up, answers=answers, followed=followed)


async def _answers(
    job: TrialJob, core: EngineCore, writer: PromptWriter
) -> tuple[tuple[Answer | None, ...], tuple[tuple[Position, ...] | None, ...] | None]:
    respondent = Respondent(core, writer)
    own = await respondent.answer_all(_counter("answering"))
    if job.lead is None:
        return own, None
    lead: Answers = read_answers(job.lead)
    return own, tuple(await respondent.follow_all(own, lead.answers, _counter("comparing")))


def _counter(text: str) -> Callable[[int, int], None]:
    return lambda done, total: _tell(text, done, total)


def _tell(text: str, done: int = 0, total: int = 0) -> None:
    sys.stdout.write(json.dumps({MARK: text, "done": done, "total": total}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
