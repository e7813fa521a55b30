"""``create-model-store``: writes a model as a plain folder of files, without links, for engines and for copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from launcher.cache.store import existing_ancestor, gigabytes, storage_error
from launcher.commands.choice import find_profile, look_around
from launcher.commands.download_bar import DownloadBar
from launcher.commands.fetching import fetch_profile, fetch_uri
from launcher.errors import DiskError, ExitCode, LaunchError

CHUNK_BYTES: Final = 16 * 1024 * 1024
PARTIAL: Final = ".partial"


def create_model_store(
    *,
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", metavar="PROFILE", help="Id, the beginning of one, or name.")
    ] = None,
    model_repo: Annotated[
        str | None, typer.Option(metavar="URI", help="A model by its address instead: hf://, ngc://, https://, s3://.")
    ] = None,
    model_store: Annotated[Path, typer.Option("--model-store", "-m", metavar="FOLDER", help="Where to write it.")],
) -> None:
    """Write the files of a profile, or of a model by its address, into a folder of their own.

    They are downloaded into the cache first, if they are not there. A file that is in the folder with the right size is
    left as it is, so an interrupted run can be repeated.
    """
    if (profile is None) == (model_repo is None):
        message = "one of --profile and --model-repo is needed"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "list-model-profiles shows the profiles")
    scenery = look_around()
    with DownloadBar() as bar:
        if model_repo is not None:
            source = fetch_uri(model_repo, scenery.settings, bar)
        else:
            source = fetch_profile(find_profile(scenery.manifest, profile or ""), scenery.settings, bar)
    target = model_store.expanduser()
    try:
        _copy_all(source, target)
    except OSError as error:
        raise storage_error(error, target) from error
    typer.echo(str(target))


def _copy_all(source: Path, target: Path) -> None:
    files = [(path, target / path.relative_to(source)) for path in sorted(source.rglob("*")) if path.is_file()]
    to_come = [(path, copy, path.stat().st_size) for path, copy in files if not _is_there(path, copy)]
    _check_space(target, sum(size for _, _, size in to_come))
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("writing", total=sum(size for _, _, size in to_come))
        for path, copy, _ in to_come:
            for count in _copied(path, copy):
                progress.advance(task, count)


def _is_there(path: Path, copy: Path) -> bool:
    return copy.is_file() and not copy.is_symlink() and copy.stat().st_size == path.stat().st_size


def _check_space(target: Path, needed: int) -> None:
    volume = existing_ancestor(target)
    free = shutil.disk_usage(volume).free
    if needed > free:
        raise DiskError(
            f"{target} has too little room: {gigabytes(needed)} needed, {gigabytes(free)} free on {volume}",
            "free some, or name a folder on a larger volume with --model-store",
        )


def _copied(path: Path, copy: Path) -> Iterator[int]:
    """Copy one file and yield the bytes of each step; a copy that is interrupted never has the file's own name."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(copy.name + PARTIAL)
    with path.open("rb") as reader, partial.open("wb") as writer:
        while data := reader.read(CHUNK_BYTES):
            writer.write(data)
            yield len(data)
        writer.flush()
        os.fsync(writer.fileno())
    partial.replace(copy)
