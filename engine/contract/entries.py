"""Reads a ``contract.yaml``: what one package of ours uses of a library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class _Unstated:
    """Stands for a default that we do not rely on."""

    def __repr__(self) -> str:
        return "<any>"


UNSTATED: Any = _Unstated()


@dataclass(frozen=True, slots=True)
class Entry:
    """One class, function or constant. ``parameters`` and those of ``methods`` map names to the default relied on."""

    name: str
    kind: str
    source: str
    defined_as: str
    parameters: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Attributes that are read where they exist."""

    @property
    def module(self) -> str:
        """Return the module in which users find it."""
        return self.name.rpartition(".")[0]

    @property
    def class_name(self) -> str:
        """Return its name in that module."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Contract:
    """The whole file. ``entries`` are the library's and those of the libraries that it brings."""

    release: str
    commit: str
    entries: tuple[Entry, ...]


def compare(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parameters that are missing, and the defaults that are not those we rely on."""
    for parameter, default in wanted.items():
        if parameter not in found:
            yield f"{name}: no parameter {parameter}"
        elif default is not UNSTATED and found[parameter] is not UNSTATED and found[parameter] != default:
            yield f"{name}: {parameter} is {found[parameter]!r} by default, not {default!r}"


def read_contract(path: Path) -> Contract:
    """Read the contract."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = [*content["objects"], *content["others"]]
    return Contract(content["release"], content["commit"], tuple(_entry(entry) for entry in entries))


def _entry(content: dict[str, Any]) -> Entry:
    return Entry(
        name=content["name"],
        kind=content["kind"],
        source=content["source"],
        defined_as=content.get("defined_as", content["name"].rpartition(".")[2]),
        parameters=_parameters(content.get("parameters", [])),
        methods={name: _parameters(parameters) for name, parameters in content.get("methods", {}).items()},
        attributes=tuple(content.get("attributes", ())),
        optional=tuple(content.get("optional", ())),
    )


def _parameters(listed: list[Any]) -> dict[str, Any]:
    """Return names and defaults; a name that stands alone has a default that we do not rely on."""
    parameters: dict[str, Any] = {}
    for item in listed:
        parameters |= item if isinstance(item, dict) else {item: UNSTATED}
    return parameters
