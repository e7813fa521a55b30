"""How every process logs: to standard error, one line per record, as text or as JSON.

The keys of a JSON line are NIM's own, so that existing collectors keep working.
"""

from __future__ import annotations

import json
import logging
import sys
import time

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


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return json.dumps(
            {
                "level": record.levelname,
                "time": f"{stamp}.{int(record.msecs):03d}Z",
                "logger": record.name,
                "process": getattr(record, "process_name", ""),
                "file_path": record.pathname,
                "line_number": record.lineno,
                "message": record.getMessage(),
                "exc_info": self.formatException(record.exc_info) if record.exc_info else None,
                "stack_info": record.stack_info,
            }
        )


def configure_logging(settings: LogSettings, process: str) -> None:
    """Set up the root logger of this process once, at its start; ``process`` is the name shown in each line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_ProcessName(process))
    handler.setFormatter(JsonFormatter() if settings.jsonl else logging.Formatter(TEXT_FORMAT))
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
