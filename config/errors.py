"""Errors of the configuration layer."""

from __future__ import annotations

from collections.abc import Sequence


class ConfigError(Exception):
    """Settings that cannot be used. ``problems`` holds one line per fault, each naming its variable."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
