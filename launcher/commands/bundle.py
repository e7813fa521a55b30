"""``gemma4-nim bundle``: lists, shows, checks and deletes engine bundles."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from config.environment import load_settings
from config.settings import Settings
from engine_build.errors import BundleError
from engine_build.fingerprint import differences
from engine_build.manifest import Manifest, read_manifest
from launcher.bundle.lock import is_being_built
from launcher.bundle.serving import check_all, fingerprint_here
from launcher.bundle.store import BundleStore, Kept, bundle_store, size_of
from launcher.cache.store import gigabytes
from launcher.commands.build.page import WIDTH, bundle_record, bundle_rows, show
from launcher.commands.download_bar import DownloadBar
from launcher.commands.options import AsJson
from launcher.errors import ExitCode, LaunchError
from launcher.hardware.detection import System, detect

DAY_S: Final = 86_400


class Action(StrEnum):
    """What is done with bundles."""

    LIST = "list"
    INSPECT = "inspect"
    VERIFY = "verify"
    PRUNE = "prune"


def bundle(  # noqa: PLR0913 - each is an option of the command line
    action: Annotated[Action, typer.Argument(help="What to do.", show_default=False)],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLE", help="Folder, name, or the beginning of a name.")
    ] = None,
    *,
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, metavar="N", help="prune: keep the N newest, delete all others.")
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0, metavar="DAYS", help="prune: delete those that were built earlier."),
    ] = None,
    unusable: Annotated[
        bool,
        typer.Option("--unusable", help="prune: delete those, too, that this machine cannot use."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="prune: delete nothing, show what would be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look after the engine bundles in NIM_BUNDLE_PATH.

    `list` shows all of them. `inspect BUNDLE` shows one: what it was made for, what was measured, and every difference
    to this machine. `verify BUNDLE` reads every byte of it and compares checksums. `prune` deletes what killed builds
    left behind and bundles whose manifest is damaged; with --unusable also those that this machine cannot use, which
    others that share the volume perhaps can; with BUNDLE, --keep or --older-than those instead.

    The status is 65 when a bundle that was to be verified is damaged, 66 when there is no such bundle.
    """
    settings = load_settings().settings
    store, wanted = bundle_store(settings), names or []
    if action in (Action.INSPECT, Action.VERIFY) and not wanted:
        raise LaunchError(ExitCode.BAD_SETTINGS, f"{action} needs a BUNDLE", "gemma4-nim bundle list shows all")
    if action is Action.LIST:
        _list(store, as_json=as_json)
    elif action is Action.INSPECT:
        _inspect([store.find(name) for name in wanted], settings, as_json=as_json)
    elif action is Action.VERIFY:
        _verify([store.find(name) for name in wanted], as_json=as_json)
    else:
        chosen = _named_or_old(store, wanted, (keep, older_than))
        if chosen is None:
            chosen = _useless(store, settings, unusable=unusable)
        _prune(store, chosen, dry_run=dry_run, as_json=as_json)


def _list(store: BundleStore, *, as_json: bool) -> None:
    kept = list(store.kept())
    if as_json:
        _write([_summary(one) for one in kept])
        return
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
    if not kept:
        console.print(f"no engine bundles in {store.root}; gemma4-nim build makes one")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("bundle", "model", "made for", "size", "built", "stage"):
        table.add_column(title, overflow="fold")
    for one in kept:
        if one.manifest is None:
            table.add_row(one.path.name, "", "", gigabytes(size_of(one.path)), "", "damaged")
            continue
        hardware = one.manifest.fingerprint.hardware
        where = "any machine" if hardware is None else hardware.device
        made = one.manifest
        table.add_row(one.path.name, made.names[0], where, gigabytes(made.size), made.created[:10], made.stage)
    console.print(table)


def _inspect(paths: Sequence[Path], settings: Settings, *, as_json: bool) -> None:
    records = []
    for path in paths:
        manifest = _read(path)
        found = [str(one) for one in differences(manifest.fingerprint, fingerprint_here(manifest, settings, detect()))]
        if as_json:
            records.append({"path": str(path), **bundle_record(manifest), "differences": found})
            continue
        here = "it fits this machine" if not found else "; ".join(found)
        show(str(path), [*bundle_rows(manifest), ("here", here)])
    if as_json:
        _write(records)


def _verify(paths: Sequence[Path], *, as_json: bool) -> None:
    done = []
    for path in paths:
        manifest = _read(path)
        with DownloadBar() as bar:
            check_all(path, manifest, None, bar)
        done.append({"path": str(path), "files": len(manifest.files), "bytes": manifest.size, "ok": True})
        if not as_json:
            typer.echo(f"{path}: {len(manifest.files)} files, {gigabytes(manifest.size)}, all as they were built")
    if as_json:
        _write(done)


@dataclass(frozen=True, slots=True)
class _Doomed:
    path: Path
    why: str


def _named_or_old(
    store: BundleStore, names: Sequence[str], limits: tuple[int | None, float | None]
) -> list[_Doomed] | None:
    """Return the bundles that were asked for by name, number or age; None when nothing was said of these."""
    keep, days = limits
    if names:
        return [_Doomed(store.find(name), "named") for name in names]
    if keep is None and days is None:
        return None
    newest_first = sorted(store.kept(), key=_built, reverse=True)
    before = time.time() - (days or 0.0) * DAY_S
    rest = newest_first if keep is None else newest_first[keep:]
    return [_Doomed(one.path, "old") for one in rest if days is None or _built(one) < before]


def _useless(store: BundleStore, settings: Settings, *, unusable: bool) -> list[_Doomed]:
    system = detect() if unusable else None
    return [_Doomed(one.path, why) for one in store.kept() if (why := _why_useless(one, settings, system))]


def _why_useless(kept: Kept, settings: Settings, system: System | None) -> str:
    if kept.manifest is None:
        return "damaged"
    if system is None or kept.manifest.stage != "complete":
        return ""
    found = differences(kept.manifest.fingerprint, fingerprint_here(kept.manifest, settings, system))
    return "; ".join(str(one) for one in found)


def _built(kept: Kept) -> float:
    return 0.0 if kept.manifest is None else datetime.fromisoformat(kept.manifest.created).timestamp()


def _prune(store: BundleStore, doomed: Sequence[_Doomed], *, dry_run: bool, as_json: bool) -> None:
    leftovers = [
        _Doomed(path, "left behind by a build")
        for path in store.leftovers()
        if not is_being_built(store, path.name.partition(".")[0])
    ]
    gone = []
    for one in (*doomed, *leftovers):
        size = size_of(one.path)
        if not dry_run:
            store.remove(one.path)
        gone.append({"path": str(one.path), "why": one.why, "bytes": size})
    if as_json:
        _write({"deleted": [] if dry_run else gone, "would_delete": gone if dry_run else []})
        return
    for entry in gone:
        word = "would be deleted" if dry_run else "deleted"
        typer.echo(f"{entry['path']}: {word}, {gigabytes(int(str(entry['bytes'])))} ({entry['why']})")
    if not gone:
        typer.echo("nothing to delete")


def _summary(kept: Kept) -> dict[str, Any]:
    if kept.manifest is None:
        return {"path": str(kept.path), "problem": kept.problem}
    made = kept.manifest
    return {
        "path": str(kept.path),
        "id": made.bundle_id,
        "names": list(made.names),
        "stage": made.stage,
        "fingerprint": made.fingerprint.model_dump(mode="json"),
        "bytes": made.size,
        "created": made.created,
    }


def _read(path: Path) -> Manifest:
    try:
        return read_manifest(path)
    except BundleError as error:
        raise LaunchError(ExitCode.CANNOT_START, error.message, "gemma4-nim build --rebuild") from error


def _write(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
