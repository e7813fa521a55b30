"""What the end of a process means for the launcher."""

from __future__ import annotations

import pytest

from launcher.errors import ExitCode
from launcher.supervision.endings import Ending, api_never_live, before_ready, describe, gave_up

KILLED = Ending("engine", -9)
FOR_MEMORY = Ending("engine", -9, for_memory=True)
BY_HAND = Ending("engine", -9, for_memory=False)
GUARDED = Ending("engine", -9, by_guard=True)


@pytest.mark.parametrize(
    ("ending", "kills", "code"),
    [
        (FOR_MEMORY, 1, ExitCode.OUT_OF_MEMORY),
        (GUARDED, 0, ExitCode.OUT_OF_MEMORY),
        (KILLED, 1, None),
        (KILLED, 2, ExitCode.OUT_OF_MEMORY),
        (BY_HAND, 1, None),
        (Ending("engine", 0), 0, ExitCode.CANNOT_START),
        (Ending("engine", 1), 0, ExitCode.CANNOT_START),
        (Ending("engine", 2), 0, ExitCode.CANNOT_START),
        (Ending("engine", -11), 0, None),
        (Ending("engine", -6), 0, None),
    ],
)
def test_engine_that_was_never_ready(ending: Ending, kills: int, code: ExitCode | None) -> None:
    """What gives up by itself or runs out of memory would do so again; what crashed gets another start."""
    failure = before_ready(ending, kills)

    assert (failure.code if failure else None) is code


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending("api", 64), ExitCode.BAD_SETTINGS),
        (Ending("api", 98), ExitCode.PORT_UNAVAILABLE),
        (Ending("api", 1), ExitCode.API_FAILED),
        (Ending("api", 0), ExitCode.API_FAILED),
        (Ending("api", -9, for_memory=True), ExitCode.OUT_OF_MEMORY),
        (Ending("api", -9, for_memory=False), ExitCode.API_FAILED),
    ],
)
def test_api_that_never_answered(ending: Ending, code: ExitCode) -> None:
    """Its own status tells settings and the port from everything else."""
    assert api_never_live(ending).code is code


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (FOR_MEMORY, ExitCode.OUT_OF_MEMORY),
        (GUARDED, ExitCode.OUT_OF_MEMORY),
        (KILLED, ExitCode.OUT_OF_MEMORY),
        (BY_HAND, ExitCode.OUT_OF_MEMORY),
        (Ending("engine", -11), ExitCode.ENGINE_FAILED),
        (Ending("engine", 0), ExitCode.ENGINE_FAILED),
        (Ending("api", 0), ExitCode.API_FAILED),
        (Ending("api", -9, for_memory=True), ExitCode.OUT_OF_MEMORY),
    ],
)
def test_process_that_ended_too_often(ending: Ending, code: ExitCode) -> None:
    """An engine that is killed again and again is killed for its memory, by whomever; never is the code 0."""
    failure = gave_up(ending, 3)

    assert failure.code is code
    assert "more than 3 times" in failure.message


def test_endings_are_told_in_words() -> None:
    """For people."""
    assert describe(3) == "status 3"
    assert describe(-11) == "killed by SIGSEGV"
    assert describe(-99) == "killed by signal 99"
    assert "memory" in FOR_MEMORY.describe()
    assert "guard" in GUARDED.describe()
    assert KILLED.describe() == "killed by SIGKILL"
