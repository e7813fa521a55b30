"""A plan as people read it: where it runs, what it can take at once, and what the memory is for."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from launcher.engine_devices import device_rows
from launcher.memory import MemoryEstimate
from launcher.plan.adapters import adapter_rows
from launcher.plan.planner import Plan, gib

PARTS = (
    ("weights", "weights", "the model itself, vision tower included"),
    ("cache", "KV cache", "keys and values of the sequences"),
    ("activations", "activations", "intermediate results of one batch, logits included"),
    ("vision", "vision", "intermediate results of a picture"),
    ("graphs", "CUDA graphs", "captured kernels"),
    ("overhead", "overhead", "processes, CUDA context, libraries"),
)
"""Fields of a ``MemoryEstimate``, what they are called, and what they hold."""


def facts(plan: Plan) -> Table:
    """Return what the plan is, as a table of names and values."""
    table = Table.grid(padding=(0, 2))
    for name, text in _facts(plan):
        table.add_row(f"  [bold]{name}[/bold]", escape(text))
    return table


def memory_table(memory: MemoryEstimate, title: str) -> Table:
    """Return what the memory of one GPU, or of the machine, is for."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    table.add_column("part")
    table.add_column("size", justify="right")
    table.add_column("what it is")
    for field, name, what in PARTS:
        size = getattr(memory, field)
        if size:
            table.add_row(name, gib(size), what)
    table.add_section()
    table.add_row("together", gib(memory.total), "")
    return table


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values."""
    return {
        "profile": None if plan.profile is None else {"id": plan.profile.id, "name": plan.profile.name},
        "names": list(plan.names),
        "engine": plan.core,
        "why": plan.why,
        "transport": {"kind": plan.transport.kind, "why": plan.transport.why},
        "notes": list(plan.notes),
        "gpus": [{"index": gpu.index, "name": gpu.name, "uuid": gpu.uuid or None} for gpu in plan.gpus],
        "context_tokens": plan.context_tokens,
        "wanted_context_tokens": plan.wanted_context,
        "max_sequences": plan.max_sequences,
        "full_context_sequences": plan.full_sequences,
        "cache_tokens": plan.cache_tokens,
        "download_bytes": None if plan.profile is None else plan.profile.download_size,
        "memory_available_bytes": plan.memory_available,
        "memory_budget_bytes": plan.memory_budget,
        "memory_bytes": memory_record(plan.memory),
    }


def memory_record(memory: MemoryEstimate) -> dict[str, int]:
    """Return an estimate as JSON values."""
    return {field: getattr(memory, field) for field, _, _ in PARTS} | {"total": memory.total}


def where(plan: Plan) -> str:
    """Return in words where the plan runs."""
    if not plan.gpus:
        return f"the processor, {plan.threads} thread{'s' if plan.threads > 1 else ''}"
    names = dict.fromkeys(gpu.name for gpu in plan.gpus)
    numbers = ", ".join(str(gpu.index) for gpu in plan.gpus)
    return f"{len(plan.gpus)} x {' and '.join(names)} (GPU {numbers})"


def _facts(plan: Plan) -> list[tuple[str, str]]:
    rows = [("model", ", ".join(plan.names))]
    if plan.profile is not None:
        rows += [
            ("profile", plan.profile.name),
            ("id", plan.profile.id),
            ("download", f"about {plan.profile.download_size / 1e9:.1f} GB"),
        ]
    free = "" if plan.memory_available is None else f", {gib(plan.memory_available)} free there"
    each = "on each GPU" if len(plan.gpus) > 1 else "on the GPU" if plan.gpus else "of main memory"
    return [
        *rows,
        ("why", plan.why),
        ("runs on", where(plan)),
        *device_rows(plan.gpus),
        *adapter_rows(plan.adapters),
        ("wire", str(plan.transport)),
        ("context", f"{plan.context_tokens} tokens" + _shortened(plan)),
        ("at once", _at_once(plan)),
        ("memory", f"{gib(plan.memory.total)} {each}{free}"),
    ]


def _shortened(plan: Plan) -> str:
    return f" of the {plan.wanted_context} wanted" if plan.context_tokens < plan.wanted_context else ""


def _at_once(plan: Plan) -> str:
    requests = f"{plan.max_sequences} request{'s' if plan.max_sequences > 1 else ''}"
    return f"{requests}; the cache holds {plan.full_sequences} of full length ({plan.cache_tokens} tokens)"
