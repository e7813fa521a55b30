"""Settings from a YAML file: sections and fields named as in ``config.settings``.

::

    model:
      max_model_len: 8192
    server:
      port: 9000

Values are taken as they are written and read like an environment variable's, so YAML's own guesses (``on``, ``12:30``)
change nothing. A key that is no setting is an error with its line.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

import yaml

from config.settings import secrets, sections
from config.settings_sources import FILE_SUFFIX, Findings, Given, Layer

MAX_BYTES: Final = 1_048_576
_NULL: Final = "tag:yaml.org,2002:null"


def file_layer(path: Path, findings: Findings) -> Layer:
    """Return what the file sets; what is wrong with it goes to ``findings``, with its line."""
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            root = yaml.compose(file.read(MAX_BYTES), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        findings.problems.append(f"NIM_CONFIG_FILE={str(path)!r}: the file cannot be read: {reason}")
        return {}
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        findings.problems.append(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or 'it cannot be read'}")
        return {}
    return {} if root is None else _Document(path, findings).layer(root)


class _Document:
    """Walks one parsed file."""

    def __init__(self, path: Path, findings: Findings) -> None:
        self._path = path
        self._findings = findings
        self._layer: Layer = {}

    def layer(self, root: yaml.Node) -> Layer:
        """Return what the document sets."""
        known = sections()
        for section, node in self._pairs(root, "", tuple(known)):
            names = {field: str(info.alias) for field, info in known[section].model_fields.items()}
            files = {f"{field}_file": name + FILE_SUFFIX for field, name in names.items() if name in secrets()}
            if node.tag == _NULL:
                continue
            for field, value in self._pairs(node, f"{section}.", (*names, *files)):
                self._set((names | files)[field], f"{section}.{field}", value)
        return self._layer

    def _pairs(self, node: yaml.Node, prefix: str, allowed: tuple[str, ...]) -> list[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            what = (
                f"{prefix.rstrip('.') or 'the file'} must be a list of names with values, as in server: {{port: 9000}}"
            )
            self._complain(node, what)
            return []
        pairs: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name not in allowed:
                nearest = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
                hint = f"; did you mean {prefix}{nearest[0]}?" if nearest else ""
                self._complain(key, f"{prefix}{name} is not a setting{hint}")
            elif name in pairs:
                self._complain(key, f"{prefix}{name} stands twice")
            else:
                pairs[name] = value
        return list(pairs.items())

    def _set(self, name: str, key: str, node: yaml.Node) -> None:
        text = self._text(node, key)
        if text is not None and text.strip():
            self._layer[name] = Given(text, f"{self._place(node)} ({key})")

    def _text(self, node: yaml.Node, key: str) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            return None if node.tag == _NULL else str(node.value)
        if isinstance(node, yaml.SequenceNode):
            items = [item.value for item in node.value if isinstance(item, yaml.ScalarNode)]
            if len(items) == len(node.value) and not any("," in item for item in items):
                return ",".join(items)
            self._complain(node, f"{key} must be a list of words without commas")
            return None
        if isinstance(node, yaml.MappingNode) and key == "profile.tags":
            pairs = [(tag.value, value.value) for tag, value in node.value]
            if all(isinstance(part, str) and "," not in part for pair in pairs for part in pair):
                return ",".join(f"{tag}={value}" for tag, value in pairs)
        self._complain(node, f"{key} must be one value")
        return None

    def _complain(self, node: yaml.Node, what: str) -> None:
        self._findings.problems.append(f"{self._place(node)}: {what}")

    def _place(self, node: yaml.Node) -> str:
        return f"{self._path}:{node.start_mark.line + 1}"
