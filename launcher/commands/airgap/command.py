"""``gemma4-nim airgap export|check``: fills the folder that is carried to a site without network, checks it there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from config.environment import load_settings
from config.manifest import Profile
from config.manifest_export import export_yaml
from config.variants import PROFILES
from launcher.banner import version
from launcher.cache.store import gigabytes, storage_error
from launcher.commands.airgap.parcel import (
    ARCHIVES,
    CHART,
    IMAGES,
    MANIFEST,
    MODELS,
    VALUES,
    Counter,
    Findings,
    Record,
    check_sums,
    files,
    read_record,
    total_bytes,
    write_record,
    write_sums,
)
from launcher.commands.choice import Scenery, chosen_profiles, look_around
from launcher.commands.download_bar import DownloadBar
from launcher.commands.fetching import fetch_profile, fetch_uri
from launcher.commands.options import ModelUri, Profiles
from launcher.errors import ExitCode, LaunchError

SHOWN: Final = 5


class Action(StrEnum):
    """The two sides of the gap."""

    EXPORT = "export"
    CHECK = "check"


def airgap(
    action: Annotated[Action, typer.Argument(help="export fills FOLDER, check reads it again.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="On the disk that is carried over.")],
    *,
    profiles: Profiles = None,
    model_uri: ModelUri = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="NAME", help="An image that the site needs. Repeatable.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FOLDER", help="The Helm chart, such as helm/gemma4-nim.")
    ] = None,
) -> None:
    """Carry a model server over an air gap: export where there is a network, check where there is none.

    export downloads the profiles into FOLDER/models, copies the chart, lists the images, and writes checksums of
    everything, archives in FOLDER/images included; run it again when something is to be added. check opens no
    connection: it reads every file and says whether a server can start from it.

    The status is 65 when something is damaged or missing; others are those of download-to-cache.
    """
    target = folder.expanduser().absolute()
    if action is Action.CHECK:
        if profiles or model_uri or image or chart:
            raise LaunchError(
                ExitCode.BAD_SETTINGS, "airgap check takes a folder and nothing else", "leave the rest out"
            )
        _check(target)
        return
    if profiles and model_uri is not None:
        raise LaunchError(ExitCode.BAD_SETTINGS, "--profiles and --model-uri exclude each other", "give one of them")
    try:
        _export(target, profiles or (), model_uri, tuple(image or ()), chart)
    except OSError as error:
        raise storage_error(error, target) from error


def _export(
    folder: Path, names: Sequence[str], model_uri: str | None, images: tuple[str, ...], chart: Path | None
) -> None:
    scenery = look_around(load_settings({"NIM_CACHE_PATH": str(folder / MODELS)}))
    demos = [name for name in names if name in PROFILES]
    wanted = _profiles(scenery, [name for name in names if name not in PROFILES], only_demo=bool(demos))
    (folder / MODELS).mkdir(parents=True, exist_ok=True)
    with DownloadBar() as bar:
        if model_uri is not None:
            fetch_uri(model_uri, scenery.settings, bar)
        else:
            for profile in wanted:
                fetch_profile(profile, scenery.settings, bar)
    chosen = () if model_uri is not None else (*demos, *(profile.name for profile in wanted))
    is_own = scenery.settings.profile.manifest_path is not None
    record = Record(version=version(), profiles=chosen, model_uri=model_uri, images=images, has_own_manifest=is_own)
    (folder / MANIFEST).write_text(export_yaml(scenery.manifest), encoding="utf-8")
    (folder / IMAGES).write_text("".join(f"{name}\n" for name in images), encoding="utf-8")
    (folder / VALUES).write_text(_values(record), encoding="utf-8")
    (folder / ARCHIVES).mkdir(exist_ok=True)
    if chart is not None:
        record = record.model_copy(update={"chart": _copy_chart(chart.expanduser(), folder)})
    write_record(folder, record)
    with _progress("checksums", total_bytes(folder)) as count:
        number = write_sums(folder, count)
    typer.echo(f"{folder}: {number} files, {gigabytes(total_bytes(folder))}, for {_subject(record)}")


def _profiles(scenery: Scenery, names: Sequence[str], *, only_demo: bool) -> Sequence[Profile]:
    # A demo model is part of the image, so nothing has to be carried for it.
    return () if only_demo and not names else chosen_profiles(scenery, names, all_profiles=False)


def _copy_chart(chart: Path, folder: Path) -> str:
    if not (chart / "Chart.yaml").is_file():
        message = f"--chart {chart} is no chart: Chart.yaml is not there"
        raise LaunchError(ExitCode.NOT_FOUND, message, "name a folder such as helm/gemma4-nim")
    name = chart.resolve().name
    shutil.rmtree(folder / CHART, ignore_errors=True)
    shutil.copytree(chart, folder / CHART / name)
    return name


def _values(record: Record) -> str:
    """Return values of the chart for the other side; what only the site knows is marked."""
    image = record.images[0] if record.images else "REGISTRY/gemma4-nim"
    values = {
        "image": {"repository": "REGISTRY/" + image.rpartition("/")[2].partition("@")[0].partition(":")[0]},
        "model": {
            "profile": record.profiles[0] if record.profiles else "",
            "uri": record.model_uri or "",
            "offline": True,
        },
        "persistence": {"enabled": True, "existingClaim": "CLAIM", "readOnly": True},
        "settings": {"NIM_ALLOW_URL_INPUT": False},
    }
    comment = "# For the chart on the other side: complete REGISTRY, and CLAIM, the volume that holds models/.\n"
    return comment + yaml.safe_dump(values, sort_keys=False)


def _check(folder: Path) -> None:
    record = read_record(folder)
    with _progress("checking", total_bytes(folder)) as count:
        findings = check_sums(folder, record, count)
    _refuse(folder, findings)
    offline = {"NIM_CACHE_PATH": str(folder / MODELS), "NIM_OFFLINE": "1", "NIM_MANIFEST_PATH": str(folder / MANIFEST)}
    scenery = look_around(load_settings(offline))
    with DownloadBar() as bar:
        for profile in _profiles(scenery, [name for name in record.profiles if name not in PROFILES], only_demo=True):
            fetch_profile(profile, scenery.settings, bar)
        if record.model_uri is not None:
            fetch_uri(record.model_uri, scenery.settings, bar)
    typer.echo(f"{folder}: {findings.checked} files, all as they were exported, for {_subject(record)}")
    archives = [path for path in files(folder) if path.is_relative_to(folder / ARCHIVES)]
    typer.echo(f"images: {', '.join(record.images) or 'none listed'} ({len(archives)} archives in {ARCHIVES}/)")
    for name, value in _to_set(folder, record).items():
        typer.echo(f"{name}={value}")


def _refuse(folder: Path, findings: Findings) -> None:
    wrong = {"damaged": findings.damaged, "missing": findings.missing, "not exported": findings.unknown}
    told = [f"{what}: {_some(names)}" for what, names in wrong.items() if names]
    if told:
        raise LaunchError(ExitCode.CANNOT_START, f"{folder}: {'; '.join(told)}", "copy these again, with their links")


def _to_set(folder: Path, record: Record) -> dict[str, str]:
    """Return the settings with which a server starts from the folder."""
    given = {"NIM_OFFLINE": "1", "NIM_CACHE_PATH": str(folder / MODELS)}
    if record.model_uri is not None:
        return given | {"NIM_MODEL_PATH": record.model_uri}
    if record.has_own_manifest:
        given["NIM_MANIFEST_PATH"] = str(folder / MANIFEST)
    return given | ({"NIM_MODEL_PROFILE": record.profiles[0]} if record.profiles else {})


def _subject(record: Record) -> str:
    return record.model_uri or ", ".join(record.profiles)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@contextmanager
def _progress(what: str, total: int) -> Iterator[Counter]:
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
