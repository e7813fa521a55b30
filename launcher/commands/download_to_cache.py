"""``download-to-cache``: fills the cache, so that later starts need no network."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from config.environment import load_settings
from config.manifest import Profile
from launcher.commands.choice import chosen_profiles, look_around
from launcher.commands.download_bar import DownloadBar
from launcher.commands.fetching import fetch_profile, fetch_uri
from launcher.commands.options import AllProfiles, AsJson, ManifestFile, ModelUri, MoreProfiles, Profiles
from launcher.errors import ExitCode, LaunchError


def download_to_cache(  # noqa: PLR0913 - each is an option of the command line
    more: MoreProfiles = None,
    *,
    profiles: Profiles = None,
    all_profiles: AllProfiles = False,
    lora: Annotated[bool, typer.Option("--lora", help="The best profile that serves LoRA adapters.")] = False,
    model_uri: ModelUri = None,
    manifest_file: ManifestFile = None,
    verify_checksums: Annotated[
        bool, typer.Option("--verify-checksums", help="Read and check files that are there, too, and mend them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download the files of a model into NIM_CACHE_PATH, each byte checked; a run that was interrupted goes on.

    Without options it is the profile that suits this machine best. Several are downloaded with
    --profiles A B C. What is in the cache is not fetched again.

    The status says what went wrong: 64 a bad option, 66 no such file, 69 nothing suits this machine, 73 the cache
    cannot be written, 74 the disk is full, 75 the network failed, 77 a key is missing or refused, 78 a licence has to
    be accepted.
    """
    wanted = [*(profiles or ()), *(more or ())]
    if sum((bool(wanted), all_profiles, lora, model_uri is not None)) > 1:
        message = "--profiles, --all, --lora and --model-uri exclude each other"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "give one of them")
    overrides = {"NIM_TAGS_SELECTOR": "feat_lora=true"} if lora else {}
    if manifest_file is not None:
        overrides["NIM_MANIFEST_PATH"] = str(manifest_file)
    scenery = look_around(load_settings(overrides))
    if model_uri is not None:
        chosen: Sequence[Profile] = ()
    else:
        chosen = chosen_profiles(scenery, wanted, all_profiles=all_profiles)
    folders: dict[str, Path] = {}
    with DownloadBar() as bar:
        for profile in chosen:
            folders[profile.name] = fetch_profile(profile, scenery.settings, bar, verify=verify_checksums)
        if model_uri is not None:
            folders[model_uri] = fetch_uri(model_uri, scenery.settings, bar, verify=verify_checksums)
    if as_json:
        sys.stdout.write(json.dumps({name: str(folder) for name, folder in folders.items()}, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{name}: {folder}\n" for name, folder in folders.items()))
