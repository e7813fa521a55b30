"""Reads the process environment, once, and with it all other sources of settings.

``load_settings`` turns the environment, the settings file and the command line into ``config.settings.Settings`` and
tells what it did not understand; ``child_environment`` hands the outcome to the processes that the launcher starts.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from config.errors import ConfigError
from config.known import ALIASES, FOREIGN, NOT_SUPPORTED, PREFIX
from config.redaction import Redactor
from config.settings import LaunchSettings, Settings, secrets, sections, variables
from config.settings_file import file_layer
from config.settings_flags import CONFIG_FILE, PASSTHROUGH, command_line_layer, passthrough_layer
from config.settings_sources import FILE_SUFFIX, Findings, Given, Layer, environment_layer, merged, resolved
from config.settings_verdicts import judge

NO_OVERRIDES: Final[Mapping[str, str]] = MappingProxyType({})
SPECIAL: Final = (CONFIG_FILE, PASSTHROUGH)
"""Variables that are no settings themselves but hold some."""


_FOR_DOWNLOADS: Final = ("NIM_MODEL_URI", "NIM_REPOSITORY_OVERRIDE")
"""Addresses that may hold a password or a signature, and that only the launcher opens."""


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and how they came about.

    Attributes:
        warnings: one line for each variable that has no effect.
        variables: every value that was given, whatever its source, by variable name and without secrets: what
            ``child_environment`` has to be given so that a child sees the same settings.
        secrets: the values of all keys and passwords, for the logs to leave out.
    """

    settings: Settings
    warnings: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=lambda: NO_OVERRIDES)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def load_settings(
    overrides: Mapping[str, str] = NO_OVERRIDES,
    environ: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> LoadedSettings:
    """Read all settings.

    Args:
        overrides: values by variable name that win over everything else, for instance from options of a command.
        environ: the environment to read; None reads this process's.
        arguments: words of the command line that are settings, such as ``--max-model-len 8192``.

    Raises:
        ConfigError: a value is not usable, or a variable has no effect and ``NIM_STRICT_CONFIG`` is set.
    """
    findings = Findings()
    values = _collect(overrides, os.environ if environ is None else environ, arguments, findings)
    settings, problems = _validate(values)
    findings.problems.extend(problems)
    judgement = judge([name for name in values if name not in SPECIAL], values, settings)
    findings.problems.extend(judgement.problems)
    if findings.problems:
        raise ConfigError(findings.problems, jsonl=settings.log.jsonl)
    warnings = (*findings.warnings, *judgement.warnings)
    if warnings and settings.launch.strict_config:
        raise ConfigError([f"{line} (NIM_STRICT_CONFIG is set)" for line in warnings], jsonl=settings.log.jsonl)
    handed_on = {name: _for_children(name, given.text) for name, given in values.items() if name in variables()}
    handed_on = {name: text for name, text in handed_on.items() if name not in secrets()}
    # A list of keys is hidden as a whole, and each key of it.
    lists = [given.text for name, given in values.items() if name in secrets()]
    hidden = tuple({part for text in lists for part in (text.strip(), *re.split(r"[,\s]+", text)) if part})
    told = (*warnings, *findings.remarks, *judgement.remarks)
    return LoadedSettings(settings, told, MappingProxyType(handed_on), hidden)


def _for_children(name: str, text: str) -> str:
    """Return a value as other processes get it: without passwords, where an address is for downloads only."""
    return Redactor()(text) if name in _FOR_DOWNLOADS else text


def child_environment(values: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment for a process that it starts, with ``values`` as its only settings.

    Variables of other programs stay, but keys and passwords do not: nothing that is started has any use for them.
    """
    known = {*variables(), *ALIASES, *NOT_SUPPORTED, *SPECIAL}
    hidden = {*secrets(), *(name + FILE_SUFFIX for name in secrets())}
    hidden |= {alias for alias, name in ALIASES.items() if name in hidden}
    removed = hidden | {name for name in known if name.startswith(PREFIX)}
    return {name: text for name, text in os.environ.items() if name not in removed} | dict(values)


def provide_variables(values: Mapping[str, str]) -> None:
    """Set variables of this process that a library reads, and that no argument of it stands for; given ones stay."""
    for name, text in values.items():
        os.environ.setdefault(name, text)


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


def metrics_folder() -> Path | None:
    """Return the folder in which API processes count together; None for one that was started by hand."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def _collect(
    overrides: Mapping[str, str], environ: Mapping[str, str], arguments: Sequence[str], findings: Findings
) -> Layer:
    """Put all layers together, the strongest last."""
    told = environment_layer(_ours(environ), findings)
    asked = environment_layer({name: text for name, text in overrides.items() if text.strip()}, findings)
    asked = {name: Given(given.text, given.source or "the command line") for name, given in asked.items()}
    typed = command_line_layer(arguments, findings)
    passed = passthrough_layer(told[PASSTHROUGH].text, findings) if PASSTHROUGH in told else {}
    path = next((layer[CONFIG_FILE] for layer in (typed, asked, told) if CONFIG_FILE in layer), None)
    written = file_layer(Path(path.text), findings) if path is not None else {}
    values = merged(resolved(layer, findings) for layer in (written, told, passed, asked, typed))
    if "AWS_PROFILE" in values:
        usual = os.path.expanduser("~/.aws/credentials")  # noqa: PTH111 - never raises, unlike Path
        values.setdefault("AWS_SHARED_CREDENTIALS_FILE", Given(usual, "AWS_PROFILE"))
    return values


def _ours(environ: Mapping[str, str]) -> dict[str, str]:
    names = {*variables(), *ALIASES, *FOREIGN, *(name + FILE_SUFFIX for name in secrets())}
    return {name: text for name, text in environ.items() if name.startswith(PREFIX) or name in names}


def _validate(values: Layer) -> tuple[Settings, list[str]]:
    problems: list[str] = []
    parts: dict[str, object] = {}
    for section, model in sections().items():
        names = [str(info.alias) for info in model.model_fields.values()]
        try:
            parts[section] = model.model_validate({name: values[name].text for name in names if name in values})
        except ValidationError as error:
            problems.extend(_explain(values, error))
            parts[section] = LaunchSettings() if model is LaunchSettings else model()
    return Settings.model_validate(parts), problems


def _explain(values: Layer, error: ValidationError) -> list[str]:
    first_by_name: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_input=False):
        name = str(detail["loc"][0])
        message = detail["msg"].removeprefix("Value error, ")
        first_by_name.setdefault(
            name, values.get(name, Given("")).complaint(name, f"{message[:1].lower()}{message[1:]}")
        )
    return list(first_by_name.values())
