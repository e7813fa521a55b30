"""Settings on the command line and in ``NIM_PASSTHROUGH_ARGS``: one option for each variable.

``NIM_MAX_MODEL_LEN`` is ``--max-model-len``: the name without ``NIM_``, small, with dashes. A flag is ``--x`` or
``--no-x``; of several, the last counts. A secret has no option, because command lines are seen by others; its
``--...-file`` names the file that holds it.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from functools import cache
from types import MappingProxyType
from typing import Final

from config.settings import secrets, sections, variables
from config.settings_sources import FILE_SUFFIX, Findings, Given, Layer

CONFIG_FILE: Final = "NIM_CONFIG_FILE"
PASSTHROUGH: Final = "NIM_PASSTHROUGH_ARGS"
SHORT_NAMES: Final = MappingProxyType(
    {
        "--host": "NIM_SERVER_HOST",
        "--port": "NIM_SERVER_PORT",
        "--model": "NIM_MODEL_PATH",
        "--profile": "NIM_MODEL_PROFILE",
        "--tp": "NIM_TENSOR_PARALLEL_SIZE",
        "-tp": "NIM_TENSOR_PARALLEL_SIZE",
    }
)
"""Other names of options, as engines have them -> their variable."""
_POSITIVE: Final = "1"
_NEGATIVE: Final = "0"


@cache
def options() -> dict[str, str]:
    """Return every option that takes a value or is a flag: its name -> its variable."""
    names = {name + FILE_SUFFIX if name in secrets() else name for name in variables()} | {CONFIG_FILE}
    return {option_of(name): name for name in sorted(names)} | dict(SHORT_NAMES)


def option_of(name: str) -> str:
    """Return the option of a variable."""
    return "--" + name.removeprefix("NIM_").lower().replace("_", "-")


def is_flag(name: str) -> bool:
    """Tell whether a variable is on or off."""
    place = variables().get(name)
    return place is not None and sections()[place[0]].model_fields[place[1]].annotation is bool


def passthrough_layer(text: str, findings: Findings) -> Layer:
    """Return what ``NIM_PASSTHROUGH_ARGS`` sets."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        findings.problems.append(f"{PASSTHROUGH}={text!r}: cannot be split into words: {str(error).lower()}")
        return {}
    return _Words(words, PASSTHROUGH, findings).layer()


def command_line_layer(words: Sequence[str], findings: Findings) -> Layer:
    """Return what the words of a command line set; one word that is no option names the model."""
    return _Words(words, "", findings).layer()


class _Words:
    """Reads words from left to right."""

    def __init__(self, words: Sequence[str], source: str, findings: Findings) -> None:
        self._words = list(words)
        self._source = source
        self._findings = findings
        self._layer: Layer = {}

    def layer(self) -> Layer:
        """Return what all words set."""
        while self._words:
            word = self._words.pop(0)
            if word.startswith("-") and word != "-":
                self._option(word)
            else:
                self._model(word)
        return self._layer

    def _option(self, word: str) -> None:
        option, sign, value = word.partition("=")
        option = option.lower().replace("_", "-")
        name = options().get(option)
        negated = options().get("--" + option.removeprefix("--no-")) if option.startswith("--no-") else None
        if name is not None and is_flag(name):
            self._set(name, value if sign else _POSITIVE, option)
        elif name is not None:
            self._valued(name, option, value if sign else None)
        elif negated is not None and is_flag(negated) and not sign:
            self._set(negated, _NEGATIVE, option)
        else:
            self._unknown(option)

    def _valued(self, name: str, option: str, value: str | None) -> None:
        if value is None:
            if not self._words or self._words[0].startswith("--"):
                self._findings.problems.append(f"{self._place(option)} needs a value")
                return
            value = self._words.pop(0)
        self._set(name, value, option)

    def _model(self, word: str) -> None:
        if self._source or "NIM_MODEL_PATH" in self._layer:
            what = "is no option" if self._source else "is one word too many: give one model, and options"
            self._findings.problems.append(f"{self._place(repr(word))} {what}")
        else:
            self._layer["NIM_MODEL_PATH"] = Given(word, "the command line")

    def _set(self, name: str, value: str, option: str) -> None:
        if self._source and name == CONFIG_FILE:
            self._findings.problems.append(f"{self._place(option)} cannot stand there; set {CONFIG_FILE}")
        elif value.strip():
            self._layer[name] = Given(value, self._place(option))
        else:
            self._findings.problems.append(f"{self._place(option)} needs a value")

    def _unknown(self, option: str) -> None:
        secret = next((name for name in secrets() if option_of(name) == option), None)
        if secret is not None:
            # The value may stand in the next word; it must not be shown as a misplaced word.
            if self._words and not self._words[0].startswith("--"):
                self._words.pop(0)
            hint = f"a secret on a command line can be seen by others; use {option}-file or {secret}"
            self._findings.problems.append(f"{self._place(option)}: {hint}")
            return
        nearest = difflib.get_close_matches(option, list(options()), n=1, cutoff=0.6)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        self._findings.problems.append(f"{self._place(option)} is not an option{hint}")
        if self._words and not self._words[0].startswith("-"):
            self._words.pop(0)

    def _place(self, option: str) -> str:
        shown = option if option.isprintable() else repr(option)
        return f"{shown} in {self._source}" if self._source else shown
