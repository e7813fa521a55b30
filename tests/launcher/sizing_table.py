"""Writes the table of sizes in ``docs/operations.md``: ``python -m tests.launcher.sizing_table``.

For either model on common GPUs: what is served when nothing else is set, and how many requests have room at once. Every
figure is the plan's, made from the memory model and the descriptions in ``tests/data/systems``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from config.manifest import load_manifest
from config.settings import Settings
from launcher.plan.planner import plan_profile
from launcher.plan.result import Plan, Refusal
from tests.launcher.profile_table import ENGINES
from tests.launcher.systems import load

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN = "<!-- Written by python -m tests.launcher.sizing_table; do not edit. -->\n"
END = "<!-- End of the table. -->\n"
SYSTEMS = {
    "1 x L4, 24 GB": "l4-1",
    "4 x A10G, 24 GB": "a10g-4",
    "1 x RTX 4090, 24 GB": "rtx-4090-1",
    "1 x RTX 5090, 32 GB": "rtx-5090-1",
    "1 x A100, 40 GB": "a100-40-1",
    "1 x L40S, 48 GB": "l40s-1",
    "4 x L40S, 48 GB": "l40s-4",
    "1 x A100, 80 GB": "a100-80-1",
    "2 x A100, 80 GB": "a100-80-2",
    "1 x H100, 80 GB": "h100-sxm-1",
    "2 x H100, 80 GB": "h100-sxm-2",
    "8 x H100, 80 GB": "h100-sxm-8",
    "half an H100 (MIG 3g.40gb)": "mig-h100-3g.40gb",
    "1 x GH200, 96 GB": "gh200-1",
    "1 x RTX PRO 6000, 96 GB": "rtx-pro-6000-1",
    "1 x H200, 141 GB": "h200-1",
    "8 x H200, 141 GB": "h200-8",
    "1 x B200, 180 GB": "b200-1",
    "8 x B200, 180 GB": "b200-8",
    "DGX Spark, 128 GB shared": "dgx-spark",
}
SHORT = 8192
"""Tokens of a usual request, question and answer together."""


def table() -> str:
    """Return the table in Markdown."""
    head = f"| Hardware | Model | Profile | Context | At once, full context | At once, {SHORT} tokens |\n"
    rows = "".join(
        f"| {' | '.join((title, variant, *_cells(name, variant)))} |\n"
        for title, name in SYSTEMS.items()
        for variant in ("26b-a4b", "31b")
    )
    return f"{head}|---|---|---|---|---|---|\n{rows}"


def _cells(name: str, variant: str) -> Iterator[str]:
    plan = _plan(name, {"profile": {"variant": variant}})
    if isinstance(plan, Refusal) or plan.profile is None:
        yield from ("nothing fits", "-", "-", "-")
        return
    context = min(SHORT, plan.context_tokens)
    short = _plan(name, {"profile": {"name": plan.profile.name}, "model": {"max_model_len": context}})
    yield f"`{plan.profile.name}`"
    yield str(plan.context_tokens)
    yield str(plan.full_sequences)
    yield "-" if isinstance(short, Refusal) else str(short.full_sequences)


def _plan(name: str, settings: dict[str, dict[str, object]]) -> Plan | Refusal:
    return plan_profile(Settings.model_validate(settings), load(name), load_manifest(), ENGINES)


def expected_page(text: str) -> str:
    """Return the page with the table as it should be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(expected_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
