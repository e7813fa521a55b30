"""Writes the table of systems in ``docs/profiles.md``: ``python -m tests.launcher.profile_table``."""

from __future__ import annotations

from pathlib import Path

from config.manifest import load_manifest
from config.settings import Settings
from launcher.plan.planner import plan_profile
from launcher.plan.table import Row, render_table
from tests.launcher.systems import describe, load, names

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"
BEGIN = "<!-- Written by python -m tests.launcher.profile_table; do not edit. -->\n"
END = "<!-- End of the table. -->\n"
ENGINES = frozenset({"llama_cpp", "vllm", "tensorrt_llm"})


def table() -> str:
    """Return the table for all described systems, both models on each."""
    manifest = load_manifest()
    moe, dense = (Settings.model_validate({"profile": {"variant": variant}}) for variant in ("26b-a4b", "31b"))
    return render_table(
        [
            Row(
                describe(name).title,
                plan_profile(moe, load(name), manifest, ENGINES),
                plan_profile(dense, load(name), manifest, ENGINES),
            )
            for name in names()
        ]
    )


def expected_page(text: str) -> str:
    """Return the page with the table as it should be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(expected_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
