"""Writes ``docs/configuration.md`` from the settings models: ``python -m config.reference [--check]``."""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from config.known import ALIASES, FAMILIES, FOREIGN, NOT_SUPPORTED, UNTOUCHED
from config.settings import sections
from config.settings_base import SettingsModel
from config.settings_flags import SHORT_NAMES, option_of

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
HEAD = """<!-- Written by "make fmt" from config/settings.py; do not edit. -->
# Configuration

Every setting can be given in four ways, all of equal power. The first of these that gives a value wins:

1. the command line: `--max-model-len 8192`. The option of a variable is its name without `NIM_`, in small letters, with
   dashes. A switch is `--strict-fit` or `--no-strict-fit`; of several, the last counts. One word that is no option is
   the model: a path or an address;
2. the same options in `NIM_PASSTHROUGH_ARGS`;
3. the variable: `NIM_MAX_MODEL_LEN=8192`. One that is set to nothing counts as not set;
4. the settings file, a YAML file that `NIM_CONFIG_FILE` or `--config-file` names;
5. the tags of the chosen profile, then the defaults below.

```yaml
model:
  max_model_len: 8192
  served_names: [gemma, google/gemma-4-31b-it]
server:
  port: 9000
```

All of them are read once, when the server starts. A value that cannot be used keeps it from starting (exit code 64),
and so does an option or a key of the file that does not exist: the line names the variable, the value, and the option
or the file's line that it stands in.

A `NIM_*` variable that has no effect is never ignored in silence: it is named in a warning with the nearest known name
or the reason, and with `NIM_STRICT_CONFIG=1` it keeps the server from starting.

Keys and passwords have no option, because everybody on a machine can read its command lines. For each, the variable
with `_FILE` at its end, or the option with `-file`, names a file that holds it. They are never logged, and the
processes that serve never see them.
"""
TITLES = {
    "server": "Server",
    "keys": "API keys",
    "tls": "TLS",
    "cors": "Browsers",
    "limits": "Limits",
    "log": "Logs",
    "model": "Model",
    "profile": "Profile",
    "memory": "Memory",
    "cache": "Cache and keys",
    "network": "Network",
    "store": "S3 mirrors",
    "media": "Pictures",
    "fetch": "Pictures by URL",
    "engine": "Engine",
    "adapters": "LoRA adapters",
    "build": "Engine bundles",
    "transport": "Triton",
    "remote": "Engines elsewhere",
    "launch": "Start and stop",
    "processes": "API processes",
    "telemetry": "Traces",
}
NO_DEFAULT = "none"
COLUMNS = ("Variable", "In the file", "Values", "Default", "Meaning")


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, model in sections().items():
        parts.append(_table(TITLES[name], model.__doc__ or "", COLUMNS))
        parts.extend(_rows(name, model))
    parts.extend(_other_variables())
    return "".join(parts)


def _other_variables() -> Iterator[str]:
    """Yield the tables of variables that are no settings of their own."""
    yield _table(
        "Other names", "Names from other containers and programs that mean the same here.", ("Variable", "Same as")
    )
    yield from (f"| `{alias}` | `{name}` |\n" for alias, name in sorted(ALIASES.items()))
    yield from (f"| `{option}` | `{option_of(name)}` |\n" for option, name in SHORT_NAMES.items())
    text = "Without these the server would not be what was asked for, so it does not start."
    yield _table("Refused", text, ("Variable", "Why, and what to do", "Accepted values"))
    yield from _answers(stops=True)
    text = "Variables of NVIDIA's NIM that change nothing here. An accepted value asks for what is so anyway."
    yield _table("Known, without effect", text, ("Variable", "Why, and what to do", "Accepted values"))
    yield from _answers(stops=False)
    text = "Variables of other programs that NVIDIA's NIM acts on."
    yield _table("Other programs' variables", text, ("Variable", "Here"))
    yield from (f"| `{name}` | no effect: {text} |\n" for name, text in sorted(FOREIGN.items()))
    yield from (f"| `{name}` | {text} |\n" for name, text in sorted(UNTOUCHED.items()))


def _answers(*, stops: bool) -> Iterator[str]:
    known = [*NOT_SUPPORTED.items(), *((f"{start}*", answer) for start, answer in FAMILIES.items())]
    for name, answer in sorted(known):
        if answer.stops is stops:
            accepted = ", ".join(f"`{value}`" for value in sorted(answer.as_it_is))
            accepted = "that of `NIM_SERVER_PORT`" if name == "NIM_HEALTH_PORT" else accepted
            yield f"| `{name}` | {answer.reason} | {accepted} |\n"


def _table(title: str, text: str, columns: tuple[str, ...]) -> str:
    return f"\n## {title}\n\n{text.replace('``', '`')}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"


def _rows(section: str, model: type[SettingsModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").replace("``", "`").split())
        key = f"`{section}.{name}`"
        yield f"| `{field.alias}` | {key} | {_values(field)} | {_default(field.default)} | {meaning} |\n"


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
    return {bool: "`0` or `1`", int: "whole number", SecretStr: "secret", float: "number", str: "text", Path: "path"}[
        annotation
    ], []


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
        sys.stderr.write("docs/configuration.md is out of date; run: make fmt\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
