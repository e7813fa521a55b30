"""Where a value comes from: the layers of settings, from the weakest to the strongest, and how they are put together.

The command line wins over ``NIM_PASSTHROUGH_ARGS``, that over the environment, that over the settings file. Each value
keeps its source, so that a complaint names the place where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from config.known import ALIASES, PREFIX
from config.settings import secrets

FILE_SUFFIX: Final = "_FILE"
"""``X_FILE`` names the file that holds the secret ``X``."""
MAX_SECRET_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Given:
    """One value as it was written.

    Attributes:
        source: where it stands, for people; empty for the environment variable of its own name.
    """

    text: str
    source: str = ""

    def complaint(self, name: str, what: str) -> str:
        """Say what is wrong with this value of the variable ``name``; the value of a secret is not shown."""
        value = "" if name in secrets() else f"={self.text!r}"
        origin = f" from {self.source}" if self.source else ""
        return f"{name}{value}{origin}: {what}"


Layer = dict[str, Given]
"""Values by variable name."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What is to be said about the values that were given, one line each.

    Attributes:
        problems: what cannot be used.
        warnings: what has no effect.
        remarks: the same of variables that other programs share, so that they are never problems.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def environment_layer(environ: Mapping[str, str], findings: Findings) -> Layer:
    """Return what the environment sets, under the names of this project."""
    # Compose files and charts set variables to nothing when they mean "not set".
    layer = {name: Given(text) for name, text in environ.items() if text.strip()}
    for alias, name in ALIASES.items():
        given = layer.pop(alias, None)
        if given is None:
            continue
        kept = layer.setdefault(name, Given(given.text, alias))
        if kept.text != given.text:
            told = findings.warnings if alias.startswith(PREFIX) else findings.remarks
            told.append(f"{alias} has no effect: {name} is set, too")
    return layer


def resolved(layer: Layer, findings: Findings) -> Layer:
    """Return the layer with its files of secrets read, and addresses of models told from paths."""
    values = dict(layer)
    for name in secrets():
        path = values.pop(name + FILE_SUFFIX, None)
        if path is None:
            continue
        if name in values:
            findings.problems.append(path.complaint(name + FILE_SUFFIX, f"{name} is given, too; keep one of them"))
        else:
            _read_secret(values, name, path, findings)
    given = values.get("NIM_MODEL_PATH")
    if given is not None and "://" in given.text:
        del values["NIM_MODEL_PATH"]
        other = values.setdefault("NIM_MODEL_URI", Given(given.text.strip(), given.source or "NIM_MODEL_PATH"))
        if other.text != given.text.strip():
            findings.problems.append(given.complaint("NIM_MODEL_PATH", "NIM_MODEL_URI names another model"))
    return values


def merged(layers: Iterable[Layer]) -> Layer:
    """Return all values, those of later layers replacing those of earlier ones."""
    values: Layer = {}
    for layer in layers:
        # One of the two names the model, so the stronger layer's choice must not meet the weaker one's.
        if {"NIM_MODEL_PATH", "NIM_MODEL_URI"} & layer.keys():
            values = {name: given for name, given in values.items() if name not in ("NIM_MODEL_PATH", "NIM_MODEL_URI")}
        values |= layer
    return values


def _read_secret(values: Layer, name: str, path: Given, findings: Findings) -> None:
    try:
        with Path(path.text).expanduser().open(encoding="utf-8") as file:
            text = file.read(MAX_SECRET_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        findings.problems.append(path.complaint(name + FILE_SUFFIX, f"the file cannot be read: {reason}"))
        return
    if not text:
        findings.problems.append(path.complaint(name + FILE_SUFFIX, "the file is empty"))
        return
    values[name] = Given(text, f"the file {path.text}")
