"""What the launcher tells its user: the plan, that the server is ready, or why it stops."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher.errors import LaunchError
from launcher.plan import Plan, gib

WIDTH = 120
"""Columns when the output is not a terminal; rich would assume 80 and wrap paths."""


class Reporter:
    """Writes to standard output for people, or as one JSON object per line; failures go to standard error."""

    def __init__(self, *, jsonl: bool) -> None:
        self._jsonl = jsonl
        self._console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def plan(self, plan: Plan) -> None:
        """Show what will be started."""
        if self._jsonl:
            self._line("INFO", "plan", plan=plan_record(plan))
            return
        table = Table.grid(padding=(0, 2))
        for name, text in _rows(plan):
            table.add_row(f"  [bold]{name}[/bold]", escape(text))
        self._console.print("[bold]gemma4-nim[/bold] starts")
        self._console.print(table)
        for note in plan.notes:
            self._console.print(f"  [yellow]note[/yellow]     {escape(note)}")

    def ready(self, url: str, model: str) -> None:
        """Say that requests are served, and show one."""
        if self._jsonl:
            self._line("INFO", "ready", url=url, model=model)
            return
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
        self._console.print(f"[green]ready on {url}[/green]  try:")
        self._console.print(
            f"  curl -s {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{escape(body)}'"
        )

    def stopped(self) -> None:
        """Say that everything has ended as asked."""
        if self._jsonl:
            self._line("INFO", "stopped")
        else:
            self._console.print("stopped")

    def warning(self, message: str) -> None:
        """Tell of something that has no effect or may surprise."""
        if self._jsonl:
            self._line("WARNING", "warning", message=message)
        else:
            self._errors.print(f"[yellow]warning:[/yellow] {escape(message)}")

    def failure(self, error: LaunchError) -> None:
        """Say in one line why the launcher stops, and what helps."""
        if self._jsonl:
            self._line("ERROR", "failed", message=error.message, remedy=error.remedy, exit_code=int(error.code))
            return
        remedy = f" ({error.remedy})" if error.remedy else ""
        self._errors.print(f"[red]gemma4-nim:[/red] {escape(error.message + remedy)}")

    def _line(self, level: str, event: str, **facts: Any) -> None:
        stream = sys.stdout if level == "INFO" else sys.stderr
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        stream.write(json.dumps({"time": stamp, "level": level, "logger": "launcher", "event": event, **facts}) + "\n")
        stream.flush()


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values, for ``--json``."""
    return {
        "model": {
            "names": list(plan.model.names),
            "weights": str(plan.model.weights),
            "vision": _text(plan.model.projector),
            "tokenizer": _text(plan.model.tokenizer),
            "why": plan.model.why,
        },
        "server": {"host": plan.host, "port": plan.port},
        "engine": {
            "core": plan.core,
            "context_tokens": plan.context_tokens,
            "max_sequences": plan.max_sequences,
            "max_queued": plan.max_queued,
            "threads": plan.threads,
        },
        "memory_bytes": {
            "weights": plan.memory.weights,
            "cache": plan.memory.cache,
            "buffers": plan.memory.buffers,
            "total": plan.memory.total,
            "available": plan.memory_available,
        },
        "notes": list(plan.notes),
    }


def _rows(plan: Plan) -> list[tuple[str, str]]:
    memory = plan.memory
    shares = f"weights {gib(memory.weights)}, KV cache {gib(memory.cache)}, rest {gib(memory.buffers)}"
    available = "unknown" if plan.memory_available is None else gib(plan.memory_available)
    return [
        ("model", f"{', '.join(plan.model.names)}  ({plan.model.why})"),
        ("weights", str(plan.model.weights)),
        ("vision", _text(plan.model.projector) or "none"),
        ("tokenizer", _text(plan.model.tokenizer) or "rebuilt from the weights' own vocabulary"),
        ("engine", f"{plan.core} on {plan.threads} CPU thread{'s' if plan.threads > 1 else ''}"),
        (
            "capacity",
            f"{plan.max_sequences} requests of up to {plan.context_tokens} tokens, {plan.max_queued} more may wait",
        ),
        ("memory", f"about {gib(memory.total)} of {available} available: {shares}"),
        ("address", f"http://{plan.host}:{plan.port}"),
    ]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
