"""Errors of the configuration layer."""

from __future__ import annotations

from collections.abc import Sequence


class ConfigError(Exception):
    """Settings that cannot be used.

    Attributes:
        problems: one line per fault, each naming its variable.
        jsonl: whether the settings ask for JSON Lines, as far as they can be read.
    """

    def __init__(self, problems: Sequence[str], *, jsonl: bool = False) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.jsonl = jsonl
