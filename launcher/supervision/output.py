"""The output of the processes as JSON Lines: whatever they write becomes one JSON object per line.

Python's records come as JSON already; libraries written in C print plain lines, and so does the interpreter when it
cannot go on. With ``NIM_JSONL_LOGGING=1`` nothing else than JSON may reach a collector.
"""

from __future__ import annotations

import json
import sys
from typing import TextIO

from config.logs import json_line
from config.redaction import Redactor


class JsonLines:
    """Takes the lines of processes (``launcher.supervision.process.LineSink``) and writes them to one stream."""

    def __init__(self, redact: Redactor, stream: TextIO | None = None) -> None:
        self._redact = redact
        self._stream = stream

    def __call__(self, process: str, line: str) -> None:
        """Write one line of one process."""
        text = line if _is_record(line) else json_line("INFO", line, logger=process, process=process)
        stream = self._stream or sys.stderr
        stream.write(self._redact(text) + "\n")
        stream.flush()


def _is_record(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and "level" in record
