"""Settles the settings of a start: the files that they name can be used, and whatever has no effect is said.

``serve`` does this before anything else, for ``--dry-run``, too, and ``doctor`` shows what would come of it.
"""

from __future__ import annotations

from config.environment import LoadedSettings
from config.errors import ConfigError
from launcher.access import Access, access_warnings
from launcher.unused_settings import unused_settings


def settled(loaded: LoadedSettings) -> tuple[str, ...]:
    """Return a line for each setting that is weak, unknown, or without effect for this start.

    Raises:
        ConfigError: what guards the port cannot be used, or a setting has no effect and ``NIM_STRICT_CONFIG`` is set.
    """
    settings = loaded.settings
    Access.of(settings)
    unused = tuple(unused_settings(settings, loaded.variables))
    if unused and settings.launch.strict_config:
        raise ConfigError([f"{line} (NIM_STRICT_CONFIG is set)" for line in unused], jsonl=settings.log.jsonl)
    return (*loaded.warnings, *access_warnings(settings), *unused)
