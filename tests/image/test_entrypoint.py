"""The container's first program becomes what its arguments ask for, in the same process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.entrypoint import command_line
from tests.fakes import console


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["nim-serve"]),
        (("--dry-run",), ["nim-serve", "--dry-run"]),
        (("hf://google/gemma-4-31B-it",), ["nim-serve", "hf://google/gemma-4-31B-it"]),
        (("/dev",), ["nim-serve", "/dev"]),
        (("cat", "/etc/hostname"), ["cat", "/etc/hostname"]),
        (("doctor", "--quiet"), ["gemma4-nim", "doctor", "--quiet"]),
    ],
)
def test_arguments_choose_the_program(arguments: tuple[str, ...], expected: list[str]) -> None:
    """Nothing serves; options, addresses and paths are nim-serve's; programs are run; all else are subcommands."""
    assert command_line(arguments) == expected


def test_it_is_replaced_by_the_program() -> None:
    """The process id stays the same, so signals that a container engine sends arrive; status and output are its own."""
    child = subprocess.Popen(
        [sys.executable, "-m", "launcher.entrypoint", sys.executable, "-c", "import os; print(os.getpid())"],
        stdout=subprocess.PIPE, text=True, env=console.environment(), cwd=Path(__file__).parents[2],
    )  # fmt: skip
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert int(output) == child.pid


def test_a_word_that_is_nothing_is_refused() -> None:
    """A misspelt command ends with the status of a bad option, not with a server that serves something else."""
    done = subprocess.run(
        [sys.executable, "-m", "launcher.entrypoint", "list-model-profile"],
        capture_output=True, text=True, env=console.environment(), cwd=Path(__file__).parents[2],
        timeout=60, check=False,
    )  # fmt: skip
    console.fails_well(done, 64, "list-model-profile")
