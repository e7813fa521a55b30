"""Reads a Dockerfile into stages of instructions, as far as the tests look at it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, its options (``--name=value``), and the rest."""

    name: str
    options: tuple[str, ...]
    value: str

    @property
    def words(self) -> list[str] | None:
        """Return the words of the exec form, None for the shell form."""
        text = self.value
        if self.name == "HEALTHCHECK":
            text = text.partition("CMD ")[2]
        return list(json.loads(text)) if text.startswith("[") else None


@dataclass(frozen=True, slots=True)
class Stage:
    """One ``FROM`` and what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions of one name."""
        return [one for one in self.instructions if one.name == name]


def read(path: Path) -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments before the first stage with their defaults, and the stages.

    Raises:
        ValueError: a line is no instruction.
    """
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        found = re.fullmatch(r"([A-Z]+)((?:\s+--[a-z-]+=\S+)*)\s+(.*)", line)
        if found is None:
            raise ValueError(line)
        name, options, value = found[1], tuple(found[2].split()), " ".join(found[3].split())
        if name == "FROM":
            base, _, alias = value.partition(" AS ")
            stages.append(Stage(alias, base))
        elif not stages:
            key, _, default = value.partition("=")
            arguments[key] = default
        else:
            stages[-1].instructions.append(Instruction(name, options, value))
    return arguments, stages
