"""What the launcher tells its user: the notices, the plan, how far it is, that requests are served, or why it stops."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config.logs import json_line
from config.redaction import Redactor
from launcher.banner import Banner
from launcher.engine_devices import device_environment, device_rows
from launcher.errors import LaunchError
from launcher.memory import gib
from launcher.plan.adapters import adapter_rows
from launcher.plan.result import Plan
from launcher.remote import RemotePlan

_SHOWN_OTHERWISE: Final = ("starting", "ready", "stopping")
WIDTH = 120
"""Columns when the output is not a terminal; rich would assume 80 and wrap paths."""


class Reporter:
    """Writes to standard output for people, or as one JSON object per line; failures go to standard error.

    Args:
        jsonl: write JSON Lines, with the keys of log lines.
        secrets: values that no line may hold.
    """

    def __init__(self, *, jsonl: bool, secrets: Iterable[str] = ()) -> None:
        self._jsonl = jsonl
        self._redact = Redactor(secrets)
        self._console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def banner(self, banner: Banner) -> None:
        """Show the notices of the start, unless the user does not want to see them."""
        if self._jsonl:
            self._line("INFO", "banner", f"serving {banner.model}", model=banner.model, notices=banner.notices())
        else:
            self._console.print(escape(self._redact(banner.text())))

    def plan(self, plan: Plan) -> None:
        """Show what will be started."""
        if self._jsonl:
            self._line("INFO", "plan", f"{plan.core} serves {plan.names[0]}", plan=plan_record(plan))
            return
        self._facts("[bold]gemma4-nim[/bold] starts", _rows(plan))
        for note in plan.notes:
            self._console.print(f"  [yellow]note[/yellow]     {escape(self._redact(note))}")

    def after_download(self, uri: str) -> None:
        """Say that what a model needs is not known before it is here, instead of a plan."""
        self._console.print(escape(self._redact(f"{uri} would be downloaded; what it needs is known then")))

    def document(self, record: Mapping[str, Any]) -> None:
        """Write one JSON document."""
        sys.stdout.write(self._redact(json.dumps(record, indent=2)) + "\n")

    def remote(self, plan: RemotePlan) -> None:
        """Show what will be started where the engines are somebody else's."""
        if self._jsonl:
            self._line("INFO", "plan", f"engines elsewhere serve {plan.names[0]}", plan=plan.record())
            return
        self._facts("[bold]gemma4-nim[/bold] starts the API alone", plan.rows())

    def _facts(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        table = Table.grid(padding=(0, 2))
        for name, text in rows:
            table.add_row(f"  [bold]{name}[/bold]", escape(self._redact(text)))
        self._console.print(title)
        self._console.print(table)

    def phase(self, phase: str, facts: Mapping[str, Any]) -> None:
        """Show where the start stands, and how far that is (``launcher.supervision.phases.Teller``)."""
        text = _phase_text(phase, facts)
        if self._jsonl:
            self._line("INFO", "phase", text, phase=phase, **facts)
        elif phase not in _SHOWN_OTHERWISE:
            self._console.print(self._redact(escape(text)))

    def ready(self, url: str, model: str, *, needs_key: bool = False) -> None:
        """Say that requests are served, and show one."""
        if self._jsonl:
            self._line("INFO", "ready", f"ready on {url}", url=url, model=model)
            return
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
        self._console.print(f"[green]ready on {url}[/green]  try:")
        headers = "-H 'Content-Type: application/json'" + (' -H "Authorization: Bearer $KEY"' if needs_key else "")
        self._console.print(f"  curl -s {url}/v1/chat/completions {headers} \\\n    -d '{escape(body)}'")

    def stopped(self) -> None:
        """Say that everything has ended as asked."""
        if self._jsonl:
            self._line("INFO", "stopped", "stopped")
        else:
            self._console.print("stopped")

    def warning(self, message: str) -> None:
        """Tell of something that has no effect or may surprise."""
        if self._jsonl:
            self._line("WARNING", "warning", message)
        else:
            self._errors.print(f"[yellow]warning:[/yellow] {escape(self._redact(message))}")

    def failure(self, error: LaunchError) -> None:
        """Say in one line why the launcher stops, and what helps."""
        if self._jsonl:
            code = int(error.code)
            self._line("ERROR", "failed", error.message, remedy=error.remedy, exit_code=code, exit_name=error.code.name)
            return
        remedy = f" ({error.remedy})" if error.remedy else ""
        self._errors.print(f"[red]gemma4-nim:[/red] {escape(self._redact(error.message + remedy))}")

    def _line(self, level: str, event: str, message: str, **facts: Any) -> None:
        stream = sys.stdout if level == "INFO" else sys.stderr
        stream.write(self._redact(json_line(level, message, event=event, **facts)) + "\n")
        stream.flush()


def _phase_text(phase: str, facts: Mapping[str, Any]) -> str:
    parts = [phase]
    done, total = facts.get("bytes_done") or 0, facts.get("bytes_total")
    if total:
        parts.append(f"{gib(done)} of {gib(total)} ({100 * done // total} %)")
    elif done:
        parts.append(gib(done))
    if facts.get("bytes_per_second"):
        parts.append(f"{facts['bytes_per_second'] / 1e6:.0f} MB/s")
    if facts.get("eta_seconds"):
        parts.append(f"about {facts['eta_seconds']} s left")
    parts.extend(str(facts[name]) for name in ("reason", "note") if facts.get(name))
    return ", ".join(parts)


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values, for ``--json``."""
    files = plan.files
    return {
        "model": {
            "names": list(plan.names),
            "weights": None if files is None else str(files.weights),
            "vision": None if files is None else _text(files.projector),
            "tokenizer": None if files is None else _text(files.tokenizer),
            "why": plan.why,
        },
        "profile": None if plan.profile is None else {"id": plan.profile.id, "name": plan.profile.name},
        "server": {"host": plan.host, "port": plan.port},
        "engine": {
            "core": plan.core,
            "transport": {"kind": plan.transport.kind, "why": plan.transport.why},
            "gpus": [gpu.uuid for gpu in plan.gpus],
            "environment": dict(device_environment(plan.gpus)),
            "context_tokens": plan.context_tokens,
            "max_sequences": plan.max_sequences,
            "full_sequences": plan.full_sequences,
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
        ("model", f"{', '.join(plan.names)}  ({plan.why})"),
        *_origin(plan),
        ("engine", f"{plan.core} on {_devices(plan)}"),
        *device_rows(plan.gpus),
        *adapter_rows(plan.adapters),
        ("wire", str(plan.transport)),
        (
            "capacity",
            f"{plan.max_sequences} requests of up to {plan.context_tokens} tokens, {plan.max_queued} more may wait",
        ),
        ("memory", f"about {gib(memory.total)} of {available} available: {shares}"),
        ("address", f"{plan.host}:{plan.port}"),
    ]


def _origin(plan: Plan) -> list[tuple[str, str]]:
    rows = [] if plan.profile is None else [("profile", f"{plan.profile.id}  ({plan.profile.name})")]
    if plan.files is not None:
        rows += [
            ("weights", str(plan.files.weights)),
            (
                "vision",
                _text(plan.files.projector) or ("none" if plan.files.checkpoint is None else "as the checkpoint"),
            ),
            ("tokenizer", _text(plan.files.tokenizer) or "rebuilt from the weights' own vocabulary"),
        ]
    return rows


def _devices(plan: Plan) -> str:
    if plan.gpus:
        return f"{len(plan.gpus)} x {plan.gpus[0].name} (GPU {', '.join(str(gpu.index) for gpu in plan.gpus)})"
    return f"{plan.threads} CPU thread{'s' if plan.threads > 1 else ''}"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
