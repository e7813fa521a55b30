"""Reads the process environment, once: the only place in the project that does.

``load_settings`` turns ``NIM_*`` variables into ``config.settings.Settings`` and tells what it did not understand;
``child_environment`` hands the outcome to the processes that the launcher starts.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from config.errors import ConfigError
from config.known import ALIASES, NOT_SUPPORTED
from config.settings import LaunchSettings, Settings, sections, variables

PREFIX: Final = "NIM_"
NO_OVERRIDES: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and one line for each variable that has no effect."""

    settings: Settings
    warnings: tuple[str, ...]


def load_settings(
    overrides: Mapping[str, str] = NO_OVERRIDES, environ: Mapping[str, str] | None = None
) -> LoadedSettings:
    """Read all settings from the environment.

    Args:
        overrides: values by variable name that win over the environment, for instance from the command line.
        environ: the environment to read; None reads this process's.

    Raises:
        ConfigError: a value is not usable, or a variable has no effect and ``NIM_STRICT_CONFIG`` is set.
    """
    given = _given({**(os.environ if environ is None else environ), **overrides})
    values, warnings = _canonical(given)
    settings, problems = _validate(values)
    for name in sorted(values.keys() - variables().keys()):
        warnings.append(_no_effect(name))
    if problems:
        raise ConfigError(problems)
    if warnings and settings.launch.strict_config:
        raise ConfigError([f"{line} (NIM_STRICT_CONFIG is set)" for line in warnings])
    return LoadedSettings(settings, tuple(warnings))


def child_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with ``overrides``, for a process that it starts."""
    return {**os.environ, **overrides}


def bare_environment() -> dict[str, str]:
    """Return an environment in which this interpreter finds the same modules, and nothing else is told.

    For a process that handles hostile input: keys, tokens and addresses in our environment are none of its business.
    """
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}


def cache_folder() -> Path:
    """Return the folder for files that can be made again, by the XDG rules."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises, unlike Path
    return Path(base) / "gemma4-nim"


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    # Compose files and charts set variables to nothing when they mean "not set".
    return {name: value for name, value in environ.items() if name.startswith(PREFIX) and value.strip()}


def _canonical(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    values = dict(given)
    warnings: list[str] = []
    for alias, name in ALIASES.items():
        value = values.pop(alias, None)
        if value is None:
            continue
        if values.setdefault(name, value) != value:
            warnings.append(f"{alias} has no effect: {name} is set, too")
    return values, warnings


def _validate(values: Mapping[str, str]) -> tuple[Settings, list[str]]:
    problems: list[str] = []
    parts: dict[str, object] = {}
    for section, model in sections().items():
        names = [str(field.alias) for field in model.model_fields.values()]
        try:
            parts[section] = model.model_validate({name: values[name] for name in names if name in values})
        except ValidationError as error:
            problems.extend(_explain(values, error))
            parts[section] = LaunchSettings() if model is LaunchSettings else model()
    return Settings.model_validate(parts), problems


def _explain(values: Mapping[str, str], error: ValidationError) -> list[str]:
    # No variable of ours holds a secret, so the value helps more than it harms.
    first_by_name: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0])
        first_by_name.setdefault(
            name, f"{name}={values.get(name, '')!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
        )
    return list(first_by_name.values())


def _no_effect(name: str) -> str:
    reason = NOT_SUPPORTED.get(name)
    if reason is not None:
        return f"{name} has no effect: {reason}"
    known = [*variables(), *ALIASES, *NOT_SUPPORTED]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{name} is not a known variable and has no effect{hint}"
