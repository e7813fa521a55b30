"""Writes ``docs/configuration.md`` from the settings models: ``python -m config.reference [--check]``."""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from config.known import ALIASES, NOT_SUPPORTED
from config.settings import SettingsModel, sections

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
HEAD = """<!-- Written by "make docs" from config/settings.py; do not edit. -->
# Configuration

Everything is set by environment variables. They are read once, when `gemma4-nim serve` starts; the options `--port` and
`--model-path` win over their variables. A variable that is set to nothing counts as not set.

A `NIM_*` variable that has no effect is never ignored in silence: it is named in a warning with the nearest known name
or the reason, and with `NIM_STRICT_CONFIG=1` it keeps the server from starting (exit code 2). So does a value out of
range, always.
"""
TITLES = {
    "server": "Server",
    "log": "Logs",
    "model": "Model",
    "media": "Pictures",
    "fetch": "Pictures by URL",
    "engine": "Engine",
    "launch": "Start and stop",
}
NO_DEFAULT = "none"


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, model in sections().items():
        parts.append(_table(TITLES[name], model.__doc__ or "", ("Variable", "Values", "Default", "Meaning")))
        parts.extend(_rows(model))
    parts.append(
        _table("Other names", "Names from other NIM containers that mean the same here.", ("Variable", "Same as"))
    )
    parts.extend(f"| `{alias}` | `{name}` |\n" for alias, name in sorted(ALIASES.items()))
    parts.append(
        _table("Known, without effect", "Variables of NVIDIA's NIM that change nothing here.", ("Variable", "Why"))
    )
    parts.extend(f"| `{name}` | {reason} |\n" for name, reason in sorted(NOT_SUPPORTED.items()))
    return "".join(parts)


def _table(title: str, text: str, columns: tuple[str, ...]) -> str:
    return f"\n## {title}\n\n{text}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"


def _rows(model: type[SettingsModel]) -> Iterator[str]:
    for field in model.model_fields.values():
        meaning = " ".join((field.description or "").replace("``", "`").split())
        yield f"| `{field.alias}` | {_values(field)} | {_default(field.default)} | {meaning} |\n"


def _values(field: FieldInfo) -> str:
    kind, limits = _kind(field.annotation)
    for item in (*field.metadata, *limits):
        for bound, sign in (("ge", "at least"), ("gt", "more than"), ("le", "at most")):
            value = getattr(item, bound, None)
            if value is not None:
                kind += f", {sign} {value:g}" if isinstance(value, float) else f", {sign} {value}"
    return kind


def _kind(annotation: Any) -> tuple[str, list[Any]]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _kind(next(argument for argument in arguments if argument is not type(None)))
    if origin is Annotated:
        kind, limits = _kind(arguments[0])
        nested = [item for field in arguments[1:] for item in getattr(field, "metadata", [])]
        return kind, [*limits, *nested]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments), []
    if origin is tuple:
        return "list with commas", []
    return {bool: "`0` or `1`", int: "whole number", float: "number", str: "text", Path: "path"}[annotation], []


def _default(value: object) -> str:
    if value is None or value == ():
        return NO_DEFAULT
    if isinstance(value, bool):
        return f"`{int(value)}`"
    if isinstance(value, tuple):
        return f"`{','.join(str(item) for item in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def main() -> int:
    """Write the page, or with ``--check`` tell whether it is up to date; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the page is out of date")
    options = parser.parse_args()
    text = render()
    if not options.check:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        sys.stderr.write("docs/configuration.md is out of date; run: make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
