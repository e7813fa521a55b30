"""``mirror``: copies the files of profiles to a store of one's own, for machines that reach nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from config.redaction import Redactor
from launcher.cache.store import gigabytes
from launcher.commands.choice import chosen_profiles, look_around
from launcher.commands.download_bar import DownloadBar
from launcher.commands.fetching import requests_for
from launcher.commands.options import AllProfiles, ModelUri, MoreProfiles, Profiles
from launcher.commands.storage import cache_of
from launcher.download.access_settings import access_from
from launcher.download.mirror import mirror_files
from launcher.download.stock import WantedFile
from launcher.errors import ExitCode, LaunchError


def mirror(
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION", help="s3://bucket/path, https://host/path, jfrog://host/path or a folder."
        ),
    ],
    more: MoreProfiles = None,
    *,
    profiles: Profiles = None,
    all_profiles: AllProfiles = False,
    model_uri: ModelUri = None,
) -> None:
    """Copy the files of a model to a store of your own, in the layout that NIM_REPOSITORY_OVERRIDE reads.

    They go through the cache: what is not there is downloaded first. What the store has already is left as it is.
    Without options it is the profile that suits this machine best. On the machines that shall use the store, set
    NIM_REPOSITORY_OVERRIDE to the same DESTINATION. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and
    AWS_ENDPOINT_URL open a store of the S3 kind.
    """
    wanted = [*(profiles or ()), *(more or ())]
    if sum((bool(wanted), all_profiles, model_uri is not None)) > 1:
        message = "--profiles, --all and --model-uri exclude each other"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "give one of them")
    scenery = look_around()
    files: list[WantedFile] = []
    if model_uri is not None:
        files.extend(requests_for(model_uri))
    else:
        chosen = chosen_profiles(scenery, wanted, all_profiles=all_profiles)
        # Profiles share files; each is copied once.
        files.extend({(file.path, file.uri): file for profile in chosen for file in profile.files}.values())
    with DownloadBar() as bar:
        done = mirror_files(files, cache_of(scenery.settings), access_from(scenery.settings), destination, bar)
    files_copied = f"{done.copied} file{'' if done.copied == 1 else 's'} copied ({gigabytes(done.bytes_copied)})"
    typer.echo(f"{files_copied}, {done.kept} were there")
    typer.echo(f"NIM_REPOSITORY_OVERRIDE={Redactor()(destination)}")
