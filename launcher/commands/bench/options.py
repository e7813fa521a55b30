"""The options of ``bench`` alone."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Concurrency: TypeAlias = Annotated[
    str, typer.Option("--concurrency", "-c", metavar="N[,N...]", help="Requests at once; several are run in turn.")
]
Requests: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--requests",
        "-n",
        min=1,
        metavar="N",
        show_default="4 for each at once, at least 16",
        help="Requests per level.",
    ),
]
Seconds: TypeAlias = Annotated[
    float | None, typer.Option(min=0.1, metavar="S", help="Send for so long per level, however many that makes.")
]
Rate: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="R", help="Requests per second at random moments, at most N at once."),
]
InputTokens: TypeAlias = Annotated[
    int, typer.Option("--input-tokens", "-i", min=1, metavar="N", help="Length of prompts.")
]
OutputTokens: TypeAlias = Annotated[
    int, typer.Option("--output-tokens", "-o", min=1, metavar="N", help="Length of answers.")
]
NaturalEnd: TypeAlias = Annotated[
    bool, typer.Option("--natural-end", help="Let answers end by themselves before that.")
]
Warmup: TypeAlias = Annotated[int, typer.Option(min=0, metavar="N", help="Requests before the measurement.")]
Seed: TypeAlias = Annotated[int, typer.Option(metavar="N", help="The same seed sends the same prompts.")]
