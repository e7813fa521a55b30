"""What is shown of a bundle: as lines for people and as JSON values, for ``build`` and for ``bundle``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine_build.exercise import WarmUp
from engine_build.gate import GateResult
from engine_build.manifest import Manifest
from launcher.cache.store import gigabytes

WIDTH: Final = 120
SHOWN_DIGEST: Final = 16


def show(title: str, rows: list[tuple[str, str]]) -> None:
    """Write a title and lines of facts to standard output."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
    console.print(Text(title, "bold"))
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(f"  [bold]{name}[/bold]", escape(text))
    console.print(table)


def bundle_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the facts about a bundle."""
    made, limits = manifest.fingerprint, manifest.limits
    return [
        ("id", manifest.bundle_id),
        ("stage", manifest.stage + (f"; left to do: {', '.join(manifest.pending)}" if manifest.pending else "")),
        (
            "model",
            f"{', '.join(manifest.names)}  (from {manifest.source.name}, {manifest.source.digest[:SHOWN_DIGEST]})",
        ),
        ("engine", f"{made.engine} {made.engine_version or 'of the target'}, {made.precision}"),
        ("made for", _hardware(manifest)),
        ("tried with", f"{limits.max_sequences} sequences of {limits.context_tokens} tokens"),
        ("size", f"{gigabytes(manifest.size)} in {len(manifest.files)} files"),
        ("built", f"{manifest.created} by {manifest.builder} in {sum(manifest.step_seconds.values()):.1f} s"),
        *_starts(manifest),
        *([] if manifest.warm_up is None else _speed(manifest.warm_up)),
        *([] if manifest.gate is None else _gate(manifest.gate)),
    ]


def bundle_record(manifest: Manifest) -> dict[str, Any]:
    """Return a bundle as JSON values: its manifest, with its id."""
    return {"id": manifest.bundle_id, **manifest.model_dump(mode="json")}


def _hardware(manifest: Manifest) -> str:
    hardware = manifest.fingerprint.hardware
    if hardware is None:
        return "any machine; the target is settled when it is warmed up there"
    count = f"{hardware.count} x " if hardware.count else ""
    driver = f", driver {hardware.driver}" if hardware.driver else ""
    return f"{count}{hardware.device} ({hardware.capability}){driver}"


def _starts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    starts = manifest.starts
    if starts is None:
        return
    without = starts.preparation_s + starts.without.whole_s
    made = f" ({starts.preparation_s:.2f} s of it making the weights)" if starts.preparation_s else ""
    yield "start", f"first token after {starts.with_bundle.whole_s:.2f} s with it, {without:.2f} s without{made}"


def _speed(warm: WarmUp) -> Iterator[tuple[str, str]]:
    alone = f"{warm.tokens_per_second:.0f} tokens/s alone"
    together = f"{warm.batch_tokens_per_second:.0f} with {warm.batch_sequences} at once"
    yield "speed", f"{alone}, {together}; first token after {1000 * warm.warm_first_token_s:.0f} ms"


def _gate(gate: GateResult) -> Iterator[tuple[str, str]]:
    figures, limits = gate.figures, gate.thresholds
    divergence = f"divergence {figures.mean_divergence:.2g} (at most {limits.max_mean_divergence:g})"
    agreement = f"agreement {figures.agreement:.1%} (at least {limits.min_agreement:.0%})"
    yield "accuracy", f"{divergence}, {agreement} at {figures.positions} positions"
    right = f"{figures.score:.1%} right, unquantised {figures.reference_score:.1%}"
    yield "answers", f"{right}; {figures.identical_answers} of {figures.questions} word for word the same"
