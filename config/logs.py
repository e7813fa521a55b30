"""How every process logs: to standard error, one line per record, as text or as JSON, and never a secret.

The keys of a JSON line are NIM's own, so that existing collectors keep working.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable
from typing import Any

from config.redaction import Redactor
from config.settings import LogSettings

TEXT_FORMAT = "%(levelname)s %(asctime)s %(process_name)s %(filename)s:%(lineno)d] %(message)s"


class _ProcessName(logging.Filter):
    """Adds the name of the process to each record."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def filter(self, record: logging.LogRecord) -> bool:
        record.process_name = self._name
        return True


class TextFormatter(logging.Formatter):
    """Formats a record as one line, a traceback below it, without secrets."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__(TEXT_FORMAT)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the text."""
        return self._redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, without secrets."""

    def __init__(self, redact: Redactor | None = None) -> None:
        super().__init__()
        self._redact = redact or Redactor()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json_line(
            record.levelname,
            self._redact(record.getMessage()),
            at=record.created,
            logger=record.name,
            process=getattr(record, "process_name", ""),
            file_path=record.pathname,
            line_number=record.lineno,
            exc_info=self._redact(self.formatException(record.exc_info)) if record.exc_info else None,
            stack_info=record.stack_info,
            **self._facts(record),
        )

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return what the caller gave as ``extra={"facts": {...}}``: keys of their own, for programs that read logs."""
        facts: dict[str, Any] = getattr(record, "facts", {})
        return {name: self._redact(value) if isinstance(value, str) else value for name, value in facts.items()}


def json_line(level: str, message: str, *, at: float | None = None, **facts: Any) -> str:
    """Return one log line with NIM's keys; ``at`` is in seconds since 1970, now unless given."""
    moment = time.time() if at is None else at
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    known = {
        "level": level,
        "time": f"{stamp}.{int(moment % 1 * 1000):03d}Z",
        "logger": "launcher",
        "process": "launcher",
        "file_path": None,
        "line_number": None,
        "message": message,
        "exc_info": None,
        "stack_info": None,
    }
    return json.dumps(known | facts)


def configure_logging(settings: LogSettings, process: str, secrets: Iterable[str] = ()) -> None:
    """Set up the root logger of this process once, at its start.

    Args:
        settings: level and form.
        process: the name shown in each line.
        secrets: values that no line may hold, ``config.environment.LoadedSettings.secrets``.
    """
    redact = Redactor(secrets)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_ProcessName(process))
    handler.setFormatter(JsonFormatter(redact) if settings.jsonl else TextFormatter(redact))
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
