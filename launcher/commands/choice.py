"""Decides for the commands what a start would serve here, and turns a refusal into the error that ends the process.

The rules of the choice among profiles are the plan's; here stands only whether a profile is wanted at all, or a model
of the user's own, or the demo model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from config.environment import LoadedSettings, load_settings
from config.manifest import Manifest, Profile, load_manifest
from config.settings import Settings
from config.variants import PROFILES
from launcher.commands.engines import GPU_ENGINES, available_engines
from launcher.download.progress import Progress
from launcher.errors import ExitCode, LaunchError
from launcher.hardware.detection import detect
from launcher.hardware.system import System
from launcher.model import find_model
from launcher.plan.own_model import plan_own_model
from launcher.plan.planner import Plan, Refusal, plan_profile
from launcher.plan.selection import select
from launcher.plan.wishes import Wishes

SHOWN_NAMES: Final = 4


@dataclass(frozen=True, slots=True)
class Scenery:
    """Everything that a choice rests on."""

    loaded: LoadedSettings
    system: System
    manifest: Manifest
    engines: frozenset[str]

    @property
    def settings(self) -> Settings:
        """Return the settings themselves."""
        return self.loaded.settings


def look_around(loaded: LoadedSettings | None = None) -> Scenery:
    """Look at settings, machine, manifest and engines.

    Raises:
        ConfigError: a setting or the manifest cannot be used.
    """
    found = loaded or load_settings()
    manifest = load_manifest(found.settings.profile.manifest_path)
    return Scenery(found, detect(), manifest, available_engines())


def with_settings(scenery: Scenery, overrides: Mapping[str, str]) -> Scenery:
    """Return the same with other settings on top.

    Raises:
        ConfigError: one of them cannot be used.
    """
    return Scenery(load_settings(overrides), scenery.system, scenery.manifest, scenery.engines)


def is_own_model(settings: Settings) -> bool:
    """Tell whether the settings name a model instead of leaving it to the profiles: a path, or a demo model."""
    return settings.model.path is not None or settings.build.bundle is not None or settings.profile.name in PROFILES


def wants_profile(scenery: Scenery) -> bool:
    """Tell whether a profile of the manifest is to be served.

    That is so when anything was said about profiles, and always where an engine for GPUs is installed: such an
    installation is meant for real models, and one whose GPU is broken or was forgotten must say so rather than serve
    toys. Else it is the demo model: nobody who just starts the server wants a download of many gigabytes.
    """
    settings, profile = scenery.settings, scenery.settings.profile
    if is_own_model(settings) or settings.model.uri is not None:
        return False
    if settings.model.engine in GPU_ENGINES:
        return True
    asked = (profile.name, profile.variant, profile.precision, profile.objective, profile.tensor_parallel)
    if any(wish is not None for wish in asked) or profile.tags or profile.manifest_path is not None:
        return True
    return bool(scenery.engines & GPU_ENGINES)


def profile_plan(scenery: Scenery) -> Plan | Refusal:
    """Return the plan for the best profile, or why there is none."""
    return plan_profile(scenery.settings, scenery.system, scenery.manifest, scenery.engines)


def own_plan(scenery: Scenery) -> Plan:
    """Return the plan for a model whose files are here: the user's own, a bundle, or the demo model.

    Raises:
        LaunchError: it cannot be served, or does not fit.
    """
    settings, system = scenery.settings, scenery.system
    if may_be_bundle(settings):
        # Imported here: few starts serve a bundle, and the format takes libraries that the others do without.
        from launcher.bundle.planning import bundle_plan  # noqa: PLC0415
        from launcher.bundle.serving import bundle_folder  # noqa: PLC0415

        folder = bundle_folder(settings)
        if folder is not None:
            return accepted(bundle_plan(folder, settings, system))
    return accepted(plan_own_model(settings, system, find_model(settings.model, settings.profile.name)))


def check_own_files(settings: Settings, progress: Progress) -> None:
    """See that a bundle is as it was built, before it is loaded; other files of the user's own are taken as they are.

    Raises:
        LaunchError: a file is missing or was changed; it is named.
    """
    if may_be_bundle(settings):
        from launcher.bundle.serving import check_served_files  # noqa: PLC0415

        check_served_files(settings, progress)


def may_be_bundle(settings: Settings) -> bool:
    """Tell whether the settings may name an engine bundle; whether it is one, its format tells."""
    path = settings.model.path
    return settings.build.bundle is not None or (path is not None and (path.expanduser() / "manifest.json").is_file())


def accepted(result: Plan | Refusal) -> Plan:
    """Return the plan.

    Raises:
        LaunchError: it is a refusal: of a setting that cannot be meant, or by hardware that does not suffice.
    """
    if isinstance(result, Plan):
        return result
    raise LaunchError(exit_code(result), result.reason, result.remedy)


def exit_code(refusal: Refusal) -> ExitCode:
    """Return the status with which a refusal ends a command."""
    # What cannot be meant is refused before any profile is looked at, and named by its variable.
    if not refusal.rejected and refusal.reason.startswith(("NIM_", "no profile has")):
        return ExitCode.BAD_SETTINGS
    if refusal.rejected and all(one.code in ("gpu-problem", "engine-missing") for one in refusal.rejected):
        return ExitCode.HARDWARE_FAULT
    return ExitCode.NO_USABLE_HARDWARE


def find_profile(manifest: Manifest, text: str) -> Profile:
    """Return the one profile that an id, the beginning of one, or a name stands for.

    Raises:
        LaunchError: none is meant, or several.
    """
    selection = select(manifest, Wishes(profile=text))
    if isinstance(selection, Refusal):
        reason = selection.reason.removeprefix("NIM_MODEL_PROFILE=")
        raise LaunchError(ExitCode.BAD_SETTINGS, reason, selection.remedy)
    found = [profile for profile in manifest.profiles if selection.named is None or profile.id in selection.named]
    if len(found) > 1:
        names = ", ".join(profile.name for profile in found[:SHOWN_NAMES])
        raise LaunchError(ExitCode.BAD_SETTINGS, f"{text} stands for {len(found)} profiles", f"name one: {names}")
    return found[0]


def chosen_profiles(scenery: Scenery, wanted: Sequence[str], *, all_profiles: bool) -> Sequence[Profile]:
    """Return the profiles that a command is about: those that are named, all of them, or else the best one here.

    Raises:
        LaunchError: a name is not known, or nothing suits this machine.
    """
    if all_profiles:
        return scenery.manifest.profiles
    if wanted:
        found = [find_profile(scenery.manifest, text) for text in wanted]
        return list({profile.id: profile for profile in found}.values())
    profile = accepted(profile_plan(scenery)).profile
    return () if profile is None else (profile,)
