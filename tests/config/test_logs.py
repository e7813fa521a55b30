"""Log lines of all processes: text, or one JSON object each."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging
from config.logs import configure_logging
from config.settings import LogSettings
configure_logging(LogSettings(level="INFO", jsonl={jsonl}), "engine")
logging.getLogger("a.b").info("two\\nlines %d", 7)
logging.getLogger("a.b").debug("hidden")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("a.b").exception("broken")
"""


def _lines(*, jsonl: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(jsonl=jsonl)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_lines_carry_one_record_each() -> None:
    """Every record is one parseable line, line breaks and tracebacks included."""
    first, second = (json.loads(line) for line in _lines(jsonl=True))

    assert first["message"] == "two\nlines 7"
    assert (first["level"], first["logger"], first["process"]) == ("INFO", "a.b", "engine")
    assert "ZeroDivisionError" in second["exc_info"]


def test_text_lines_name_level_process_and_place() -> None:
    """A text line starts with the level and tells the process; lower levels are hidden."""
    lines = _lines(jsonl=False)

    assert lines[0].startswith("INFO ")
    assert " engine <string>:" in lines[0]
    assert not any("hidden" in line for line in lines)
