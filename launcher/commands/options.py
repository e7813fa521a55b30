"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url", "-u", metavar="URL", show_default="this machine, at NIM_SERVER_PORT", help="Address of the server."
    ),
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", show_default="the server's first", help="Name of the model."),
]
Wait: TypeAlias = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="How long to wait while the server loads its model.")
]
KeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File that holds the API key; else NIM_API_KEY is sent."),
]
ClientCert: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="PEM file with a certificate and its key, for a server that asks for one."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document instead of text.")]
MoreProfiles: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="PROFILE", help="Further profiles.")]
Profiles: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--profiles", "--profile", "-p", metavar="PROFILE", help="Id, the beginning of one, or name. Repeatable."
    ),
]
AllProfiles: TypeAlias = Annotated[bool, typer.Option("--all", help="Every profile of the manifest.")]
ModelUri: TypeAlias = Annotated[
    str | None, typer.Option(metavar="URI", help="A model by its address instead: hf://, ngc://, https://, s3://.")
]
ManifestFile: TypeAlias = Annotated[
    Path | None, typer.Option("--manifest-file", "-m", metavar="FILE", help="The profiles of another manifest.")
]
