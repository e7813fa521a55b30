"""Starts trials as processes of their own, passes their progress on, and ends those that take too long."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from config.environment import child_environment
from engine_build.errors import TrialError
from engine_build.trial import MARK, TrialJob, TrialResult

KEPT_LINES: Final = 20
STOP_GRACE_S: Final = 10.0

Tell = Callable[[str, int, int], None]
"""Takes what a process is doing, and how much of how much of it is done; 0 of 0 where that is not counted."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A finished trial: its result, and the seconds from starting the process to the first token."""

    result: TrialResult
    to_first_token_s: float


def run_trial(job: TrialJob, variables: Mapping[str, str], timeout_s: float, tell: Tell) -> Trial:
    """Run one trial and wait for it.

    Args:
        job: what to do.
        variables: added to the environment of the process, such as where caches lie.
        timeout_s: it is ended after so many seconds.
        tell: is told what it does.

    Raises:
        TrialError: it failed, crashed or took too long; the message has its last words.
    """
    path = job.result.with_suffix(".job.json")
    path.write_text(job.model_dump_json(), encoding="utf-8")
    started = time.perf_counter()
    overhead: list[float] = []

    def listen(text: str, done: int, total: int) -> None:
        if not overhead:
            # From here on the process measures by itself.
            overhead.append(time.perf_counter() - started)
        tell(text, done, total)

    run_module("engine_build.trial", ["--job", str(path)], (variables, timeout_s), listen)
    try:
        result = TrialResult.model_validate_json(job.result.read_bytes())
    except (OSError, ValidationError) as error:
        raise TrialError(f"the trial of {job.runtime.core} ended without a result") from error
    to_first_token = (overhead[0] if overhead else 0.0) + result.load_s + result.first_token_s
    return Trial(result, to_first_token)


def run_module(module: str, arguments: Sequence[str], around: tuple[Mapping[str, str], float], tell: Tell) -> None:
    """Run ``python -m module`` to its end; ``around`` is what its environment gets, and how long it may take.

    Raises:
        TrialError: it failed, crashed or took too long.
    """
    variables, timeout_s = around
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(variables),
        )
        is_late = threading.Event()

        def kill() -> None:
            is_late.set()
            process.kill()

        watchdog = threading.Timer(timeout_s, kill)
        watchdog.start()
        try:
            if process.stdout is not None:
                with process.stdout as stream:
                    _pass_on(stream, tell)
            status = process.wait()
        finally:
            watchdog.cancel()
            _end(process)
        if status:
            last = _last_words(errors)
            why = f"took longer than {timeout_s:.0f} s" if is_late.is_set() else f"ended with status {status}"
            raise TrialError(f"{module} {why}: {last}" if last else f"{module} {why}")


def _pass_on(stream: IO[bytes], tell: Tell) -> None:
    for line in stream:
        # An engine's libraries may print anything.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            tell(str(record[MARK]), int(record["done"]), int(record["total"]))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = [line for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    own = [line.removeprefix("trial: ") for line in lines if line.startswith("trial: ")]
    return own[-1] if own else " | ".join(lines[-KEPT_LINES:])


def remove_job_files(folder: Path) -> None:
    """Delete the files that trials leave in a folder."""
    for path in (*folder.glob("*.job.json"), *folder.glob("*.result.json")):
        path.unlink(missing_ok=True)
