"""A bundle on its way to being served: found in the settings, compared with this machine, its files checked.

The comparison is quick and belongs to the plan. Reading the files may take minutes, so it is done when the port is open
already, with progress like a download's.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from config.settings import Settings
from engine_build.checksums import Advance, FileRecord
from engine_build.errors import BundleError, PlanError
from engine_build.fingerprint import Fingerprint
from engine_build.frozen_arguments import engine_arguments, lasting
from engine_build.manifest import Manifest, is_bundle, read_manifest
from engine_build.verification import check_files, check_match, listed
from launcher.bundle.machine import engine_version, gpus_for, hardware_of
from launcher.bundle.store import bundle_store
from launcher.download.progress import DownloadState, Phase, Progress
from launcher.errors import ExitCode, LaunchError
from launcher.hardware.system import System


def bundle_folder(settings: Settings) -> Path | None:
    """Return the bundle that the settings name; None when they name none.

    Raises:
        LaunchError: ``NIM_ENGINE_BUNDLE`` names something else, or ``NIM_MODEL_PATH`` another model.
    """
    named, path = settings.build.bundle, settings.model.path
    if named is not None:
        folder = named.expanduser()
        if path is not None and path.expanduser() != folder:
            message = f"NIM_MODEL_PATH={str(path)!r} and NIM_ENGINE_BUNDLE={str(named)!r} name two models"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "set one of them")
        if not is_bundle(folder):
            message = f"NIM_ENGINE_BUNDLE={str(named)!r} is no engine bundle: it has no manifest.json of one"
            raise LaunchError(ExitCode.CANNOT_START, message, "gemma4-nim build makes one")
        return folder
    return path.expanduser() if path is not None and is_bundle(path.expanduser()) else None


def matching_manifest(folder: Path, settings: Settings, system: System) -> Manifest:
    """Return a bundle's manifest if it is complete and was made for this machine.

    Raises:
        LaunchError: it was not; each difference is named.
    """
    try:
        manifest = read_manifest(folder)
        check_match(manifest, fingerprint_here(manifest, settings, system))
    except (BundleError, PlanError) as error:
        remedy = "gemma4-nim build makes one for this machine"
        raise LaunchError(ExitCode.CANNOT_START, error.message, remedy) from error
    return manifest


def fingerprint_here(manifest: Manifest, settings: Settings, system: System) -> Fingerprint:
    """Return what a bundle would have to be made for, to be used here and now.

    Raises:
        PlanError: the engine cannot do any more what the bundle was made for.
    """
    made = manifest.fingerprint
    gpus = gpus_for(made.hardware, manifest.limits.tensor_parallel, system)
    precision = settings.profile.precision or made.precision
    return Fingerprint(
        engine=made.engine,
        engine_version=engine_version(made.engine),
        hardware=hardware_of(system, made.engine, gpus),
        model=made.model,
        precision=precision,
        arguments=lasting(engine_arguments(made.engine, precision, manifest.limits)),
    )


def check_served_files(settings: Settings, progress: Progress) -> None:
    """Check the files of the bundle that is about to be served; without one there is nothing to do.

    Raises:
        LaunchError: a file is missing or was changed; it is named.
    """
    folder = bundle_folder(settings)
    if folder is None:
        return
    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        raise LaunchError(ExitCode.CANNOT_START, error.message, "gemma4-nim build --rebuild") from error
    check_all(folder, manifest, bundle_store(settings).receipt(manifest.bundle_id), progress)


def check_all(folder: Path, manifest: Manifest, receipt: Path | None, progress: Progress) -> None:
    """Check every file of a bundle, and of the checkpoint that it refers to.

    Args:
        folder: the bundle.
        manifest: its manifest.
        receipt: remembers what was read; None reads everything.
        progress: is told how far it is.

    Raises:
        LaunchError: a file is missing or was changed; it is named.
    """
    beside = {} if manifest.source.path is None else manifest.source.files
    total = manifest.size + sum(record.size for record in beside.values())
    done, mutex = 0, Lock()

    def advance(count: int) -> None:
        nonlocal done
        with mutex:
            done += count
            progress.update(DownloadState(Phase.CHECKING, done, total, note=f"the bundle {folder.name}"))

    _refuse_damage(folder, manifest.files, receipt, advance)
    if manifest.source.path is not None:
        aside = None if receipt is None else receipt.with_suffix(".source.json")
        _refuse_damage(folder / manifest.source.path, beside, aside, advance)


def _refuse_damage(folder: Path, records: dict[str, FileRecord], receipt: Path | None, advance: Advance) -> None:
    damages = check_files(folder, records, receipt, advance)
    if damages:
        message = f"{folder} is damaged: {listed(damages)}"
        raise LaunchError(ExitCode.CANNOT_START, message, "gemma4-nim build --rebuild makes it anew")
