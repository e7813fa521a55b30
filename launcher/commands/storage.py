"""The cache folder and the ways to the sources, as the settings say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from config.environment import cache_folder
from config.settings import Settings
from launcher.cache.store import Cache
from launcher.download.access_settings import cache_from

CONTAINER_CACHE: Final = Path("/opt/nim/.cache")


def cache_root(settings: Settings) -> Path:
    """Return the cache folder: the one that is set, else the container's if it is of use, else the user's own."""
    if settings.cache.path is not None:
        return settings.cache.path.expanduser()
    return CONTAINER_CACHE if _is_of_use(CONTAINER_CACHE) else cache_folder()


def _is_of_use(folder: Path) -> bool:
    """Tell whether a folder can be written, or holds something: a volume that was filled elsewhere is read-only."""
    try:
        return os.access(folder, os.W_OK) or any(folder.iterdir())
    except OSError:
        return False


def cache_of(settings: Settings) -> Cache:
    """Return the cache."""
    return cache_from(settings, cache_root(settings))


def is_offline(settings: Settings) -> bool:
    """Tell whether no other machine may be asked."""
    return settings.cache.offline or settings.cache.disable_download
