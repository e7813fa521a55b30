# ruff: noqa: INP001
"""Writes what the chart holds twice: ``values.schema.json``, and in ``README.md`` the tables of all values.

``python helm/generate.py`` writes both, ``--check`` only tells whether they are up to date. Types of the Kubernetes API
come from the schemas that ``kubernetes-validate`` ships. Everything else about the chart is Helm's business.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

HERE: Final = Path(__file__).resolve().parent
CHART: Final = HERE / "gemma4-nim"
KUBERNETES: Final = "1.37.0"
_PREFIX: Final = "io.k8s.api."
_QUANTITY: Final = r"^([0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?)?$"
_SCALAR: Final = {"type": ["string", "number", "boolean"]}
_WORDS: Final[dict[str, Any]] = {
    "any": True,
    "string": {"type": "string"},
    "text": {"type": "string", "minLength": 1},
    "integer": {"type": "integer"},
    "positive": {"type": "number", "exclusiveMinimum": 0},
    "boolean": {"type": "boolean"},
    "scalar": _SCALAR,
    "amount": {"type": ["integer", "string"], "pattern": "^[0-9]+%?$", "minimum": 0},
    "path": {"type": "string", "pattern": "^/"},
    "uri": {"type": "string", "pattern": "^$|^(hf|ngc|s3|https)://.+|^/"},
    "digest": {"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
    "api key": {"type": "string", "pattern": r"^[\x21-\x2b\x2d-\x7e]{1,512}$"},
    "duration": {"type": "string", "pattern": "^$|^([0-9]+(ms|[ywdhms]))+$"},
    "quantity": {"type": "string", "pattern": _QUANTITY},
    "settings": {"type": "object", "additionalProperties": False, "patternProperties": {"^NIM_[A-Z0-9_]+$": _SCALAR}},
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "limits": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
            "requests": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
            "claims": {"type": "array", "items": {"$ref": "#/$defs/core.v1.ResourceClaim"}},
        },
    },
}
_NAMED: Final = {"volume": "core.v1.Volume", "mount": "core.v1.VolumeMount"}


class SchemaWriter:
    """Turns the short notation into JSON Schema and gathers the Kubernetes types that it names."""

    def __init__(self) -> None:
        self.types: dict[str, Any] = {}

    def schema(self, notation: Any) -> Any:
        """Return the schema of one value."""
        if isinstance(notation, dict):
            properties = {name: self.schema(value) for name, value in notation.items()}
            return {"type": "object", "additionalProperties": False, "properties": properties}
        if isinstance(notation, list):
            if len(notation) == 1 and isinstance(notation[0], dict):
                return {"type": "array", "items": self.schema(notation[0])}
            return {"enum": notation}
        return self._words(str(notation))

    def _words(self, words: str) -> Any:
        if words.endswith(" or null"):
            return {"anyOf": [{"type": "null"}, self._words(words.removesuffix(" or null"))]}
        for prefix, kind, member in (("list of ", "array", "items"), ("map of ", "object", "additionalProperties")):
            if words.startswith(prefix):
                return {"type": kind, member: self._words(words.removeprefix(prefix))}
        if words.startswith("k8s "):
            return self._reference(words.removeprefix("k8s "))
        if words in _NAMED:
            return self._without_name(_NAMED[words])
        limits = re.fullmatch(r"(\d+)\.\.(\d*)", words)
        if limits:
            least, most = limits.groups()
            return {"type": "integer", "minimum": int(least), **({"maximum": int(most)} if most else {})}
        schema = _WORDS[words]
        if words == "resources":
            self._reference("core.v1.ResourceClaim")
        return schema

    def _reference(self, name: str) -> dict[str, str]:
        """Refer to a Kubernetes type, and take it over with all that it refers to."""
        if name not in self.types:
            self.types[name] = None
            self.types[name] = self._pruned(definitions()[_full(name)])
        return {"$ref": f"#/$defs/{name}"}

    def _without_name(self, name: str) -> Any:
        """Return a type whose name is the key that it stands under."""
        self._reference(name)
        schema = dict(self.types[name])
        schema["properties"] = {key: value for key, value in schema["properties"].items() if key != "name"}
        schema["required"] = [key for key in schema.get("required", []) if key != "name"]
        return schema

    def _pruned(self, node: Any) -> Any:
        """Leave out what is only to be read, and make references point into this schema."""
        if isinstance(node, list):
            return [self._pruned(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return self._reference(_short(node["$ref"].rpartition("/")[2]))
        return {
            key: self._pruned(value)
            for key, value in node.items()
            if not (key == "description" and isinstance(value, str)) and not key.startswith("x-kubernetes")
        }


@cache
def definitions() -> dict[str, Any]:
    """Return all types of the Kubernetes API."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    types: dict[str, Any] = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))["$defs"]
    return types


def _full(name: str) -> str:
    return name if name.startswith("io.k8s.") else f"{_PREFIX}{name}"


def _short(name: str) -> str:
    return name.removeprefix(_PREFIX)


def schema_text() -> str:
    """Return ``values.schema.json``."""
    writer = SchemaWriter()
    notation = yaml.safe_load((HERE / "values.schema.yaml").read_text(encoding="utf-8"))
    schema = writer.schema(notation)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Values of the chart gemma4-nim"}
    types = {name: writer.types[name] for name in sorted(writer.types)}
    # One line for each top value and type: small, and a change shows as what it is.
    lines = [f'"{key}": {json.dumps(value)}' for key, value in {**head, "type": "object"}.items()]
    lines.append('"additionalProperties": false')
    lines += [_block("properties", schema["properties"]), _block("$defs", types)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(name: str, entries: dict[str, Any]) -> str:
    inner = ",\n".join(f'  "{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in entries.items())
    return f'"{name}": {{\n{inner}\n}}'


def readme_text() -> str:
    """Return the chart's ``README.md``."""
    head = (HERE / "README.head.md").read_text(encoding="utf-8")
    mark = "<!-- Written by helm/generate.py from values.yaml and README.head.md; do not edit. -->"
    return f"{mark}\n{head}{values_table()}"


def values_table() -> str:
    """Return the tables of all values, one for each section of ``values.yaml``."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    node = yaml.compose("\n".join(lines))
    rows = list(_rows(node, "", lines))
    text = ""
    sections = [(number, line.removeprefix("## @section ")) for number, line in enumerate(lines) if "@section" in line]
    for index, (start, title) in enumerate(sections):
        end = sections[index + 1][0] if index + 1 < len(sections) else len(lines)
        text += f"\n### {title}\n\n| Value | Default | Meaning |\n|---|---|---|\n"
        for number, path, default, meaning in rows:
            if start < number < end:
                text += f"| `{path}` | {default} | {meaning} |\n"
    return text


def _rows(node: Any, above: str, lines: list[str]) -> Any:
    """Yield line, path, default and meaning of every value that has a comment, in order."""
    for key, value in node.value:
        path = f"{above}{key.value}"
        meaning = _comment(key.start_mark.line, lines)
        children = list(_rows(value, f"{path}.", lines)) if isinstance(value, yaml.MappingNode) else []
        if meaning:
            yield key.start_mark.line, path, "" if children else _default(value), meaning
        yield from children


def _comment(number: int, lines: list[str]) -> str:
    """Return the comment that stands right above a line, at the same indent."""
    words: list[str] = []
    indent = len(lines[number]) - len(lines[number].lstrip())
    while number > 0 and lines[number - 1].startswith(" " * indent + "# "):
        number -= 1
        words.insert(0, lines[number].strip().removeprefix("# "))
    return " ".join(words).replace("|", "\\|")


def _default(value: Any) -> str:
    loaded = yaml.safe_load(yaml.serialize(value))
    return f"`{json.dumps(loaded)}`".replace("|", "\\|")


def main() -> int:
    """Write or check both files."""
    wanted = {CHART / "values.schema.json": schema_text(), CHART / "README.md": readme_text()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(HERE.parent)} is out of date: run python helm/generate.py\n")
        return bool(stale)
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
