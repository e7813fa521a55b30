"""Writes plans for several machines as one table, for documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launcher.plan.result import Plan, Refusal


@dataclass(frozen=True, slots=True)
class Row:
    """One machine: what it is, and what it gets for either model."""

    system: str
    moe: Plan | Refusal
    dense: Plan | Refusal


def render_table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown: profile and context for each model, and why the first is what it is."""
    head = "| System | 26B-A4B | Context | 31B | Context | Why (26B-A4B) |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(_cells(row))} |\n" for row in rows)


def _cells(row: Row) -> Iterator[str]:
    yield row.system.replace("|", "/")
    for plan in (row.moe, row.dense):
        yield from _choice(plan)
    yield (row.moe.why if isinstance(row.moe, Plan) else row.moe.reason).replace("|", "/")


def _choice(plan: Plan | Refusal) -> tuple[str, str]:
    if isinstance(plan, Refusal):
        return "refused", "-"
    profile = plan.profile
    if profile is None:
        return plan.core, f"{plan.full_sequences} x {plan.context_tokens}"
    name = f"{profile.engine} {profile.precision} tp{profile.tensor_parallel}"
    return name, f"{plan.full_sequences} x {plan.context_tokens}"
