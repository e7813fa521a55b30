"""Brings model files into the cache for the commands: the files of profiles, or a model by its address."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from config.manifest import Profile
from config.settings import Settings
from launcher.commands.storage import cache_of
from launcher.download.access_settings import access_from
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.download.progress import Progress
from launcher.download.sources import HubSource, NgcSource, parse_source
from launcher.download.stock import WantedFile
from launcher.errors import ExitCode, LaunchError


def fetch_profile(profile: Profile, settings: Settings, progress: Progress, *, verify: bool = False) -> Path:
    """Return the folder with all files of a profile.

    Raises:
        LaunchError: as ``launcher.download.fetch.fetch_workspace``.
    """
    return fetch_workspace(profile.files, cache_of(settings), access_from(settings), progress, verify=verify)


def fetch_uri(uri: str, settings: Settings, progress: Progress, *, verify: bool = False) -> Path:
    """Return the folder with the files of a model that was named by its address.

    Raises:
        LaunchError: as ``launcher.download.fetch.fetch_workspace``.
    """
    return fetch_workspace(requests_for(uri), cache_of(settings), access_from(settings), progress, verify=verify)


def requests_for(uri: str) -> Sequence[WantedFile]:
    """Return what to fetch for an address: the file that it names, or all files of the repository.

    Raises:
        LaunchError: it cannot be read.
    """
    source = parse_source(uri)
    if isinstance(source, HubSource | NgcSource) and source.file is None:
        return [FileRequest("*", uri)]
    name = source.canonical.partition("?file=")[2] or source.canonical.partition("?")[0]
    file = name.rpartition("/")[2]
    if not file:
        raise LaunchError(ExitCode.BAD_SETTINGS, f"{uri} names no file", "add the name of the file")
    return [FileRequest(file, uri)]
