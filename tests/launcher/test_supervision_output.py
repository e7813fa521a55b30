"""What reaches the terminal or the collector: JSON Lines only when asked for, notices once, never a secret."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable

import pytest

from config.redaction import Redactor
from launcher.banner import Banner, version
from launcher.errors import ExitCode, LaunchError
from launcher.report import Reporter
from launcher.supervision.output import JsonLines
from launcher.supervision.process import MAX_LINE_BYTES, Command, start

NIM_KEYS = {"level", "time", "file_path", "line_number", "message", "exc_info", "stack_info"}


def _lines_of(program: str) -> list[dict[str, object]]:
    stream = io.StringIO()

    async def run() -> None:
        command = Command("engine", (sys.executable, "-c", program), dict(os.environ))
        child = await start(command, JsonLines(Redactor(["top-secret"]), stream))
        assert await child.wait() == 0

    asyncio.run(asyncio.wait_for(run(), 60))
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_plain_lines_of_a_process_become_json() -> None:
    """Of both streams; the last line needs no end, and a secret is not passed on."""
    lines = _lines_of("import sys; print('one top-secret'); sys.stderr.write('two')")

    assert sorted(str(line["message"]) for line in lines) == ["one ***", "two"]
    assert all(line["process"] == "engine" and line.keys() >= NIM_KEYS for line in lines)


def test_json_lines_of_a_process_stay_as_they_are() -> None:
    """They are not wrapped again; other JSON is no log line."""
    first, second = _lines_of("""print('{"level": "INFO", "message": "a"}'); print('{"a": 1}')""")

    assert first == {"level": "INFO", "message": "a"}
    assert second["message"] == '{"a": 1}'


def test_endless_line_is_cut() -> None:
    """A process that never ends its line can neither stop the launcher nor fill its memory."""
    lines = _lines_of(f"print('x' * {3 * MAX_LINE_BYTES} + 'y')")

    text = "".join(str(line["message"]) for line in lines)
    assert len(lines) >= 2
    assert text == "x" * (3 * MAX_LINE_BYTES) + "y"


@pytest.mark.parametrize(
    ("banner", "licences"),
    [
        (Banner("google/gemma-4-31b-it"), 2),
        (Banner("google/gemma-4-31b-it", precision="nvfp4"), 3),
        (Banner("demo-moe", is_demo=True), 2),
    ],
)
def test_notices_name_every_licence(banner: Banner, licences: int) -> None:
    """Ours, Gemma's, and NVIDIA's where the weights are theirs."""
    assert len(banner.notices()) == licences
    assert "Apache License, Version 2.0" in banner.text()
    assert version() in banner.text()
    assert banner.model in banner.text()


TOLD: dict[str, Callable[[Reporter], None]] = {
    "banner": lambda reporter: reporter.banner(Banner("m")),
    "phase": lambda reporter: reporter.phase(
        "downloading", {"bytes_done": 2**30, "bytes_total": 4 * 2**30, "eta_seconds": 9, "bytes_per_second": 5e6}
    ),
    "ready": lambda reporter: reporter.ready("http://127.0.0.1:1", "m"),
    "warning": lambda reporter: reporter.warning("odd"),
    "failed": lambda reporter: reporter.failure(LaunchError(ExitCode.DISK_FULL, "no room", "free some")),
    "stopped": lambda reporter: reporter.stopped(),
}


@pytest.mark.parametrize("event", TOLD)
def test_everything_told_is_one_json_line_with_nims_keys(event: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So that collectors made for NIM read it."""
    TOLD[event](Reporter(jsonl=True))
    output = capsys.readouterr()
    (line,) = [json.loads(text) for text in (output.out + output.err).splitlines()]

    assert line.keys() >= NIM_KEYS
    assert line["event"] == event
    assert line["message"]


def test_failure_as_json_carries_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """A program need not wait for the status of the process."""
    TOLD["failed"](Reporter(jsonl=True))
    line = json.loads(capsys.readouterr().err)

    assert (line["exit_code"], line["exit_name"], line["remedy"]) == (74, "DISK_FULL", "free some")


def test_progress_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Amount, share, rate and time left."""
    TOLD["phase"](Reporter(jsonl=False))

    assert capsys.readouterr().out == "downloading, 1.0 GiB of 4.0 GiB (25 %), 5 MB/s, about 9 s left\n"


@pytest.mark.parametrize("jsonl", [False, True])
def test_reporter_hides_secrets(capsys: pytest.CaptureFixture[str], *, jsonl: bool) -> None:
    """Also in the one line that says why the launcher stops."""
    reporter = Reporter(jsonl=jsonl, secrets=["top-secret"])
    reporter.warning("top-secret")
    reporter.failure(LaunchError(ExitCode.INTERNAL, "at https://a:top-secret@b", "top-secret"))
    reporter.phase("downloading", {"note": "top-secret"})
    output = capsys.readouterr()

    assert "top-secret" not in output.out + output.err
    assert "***" in output.out
    assert "***" in output.err


def test_a_password_in_an_address_is_shown_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Not in the notices, not instead of a plan, not in a document: models may be named by an address with one."""
    address = "https://me:hunter22@mirror.example/model.gguf?X-Amz-Signature=abcdef"
    reporter = Reporter(jsonl=False)
    reporter.banner(Banner(address))
    reporter.after_download(address)
    reporter.document({"model": {"uri": address}})
    shown = capsys.readouterr().out

    assert shown.count("mirror.example/model.gguf") == 3
    assert "hunter22" not in shown
    assert "abcdef" not in shown
