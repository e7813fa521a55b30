"""What becomes of a variable that is no setting: a warning, a refusal, or nothing where its value asks for nothing.

The facts about NVIDIA's variables stand in ``config.known``; here they are applied to what a user has set.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from config.known import ALIASES, FAMILIES, FOREIGN, NOT_SUPPORTED, Answer
from config.settings import Settings, variables
from config.settings_sources import Layer


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line for each variable that does not do what it says.

    Attributes:
        problems: the server does not start with them.
        warnings: they have no effect; with ``NIM_STRICT_CONFIG`` they are problems.
        remarks: they have no effect and belong to other programs, so they are never problems.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    remarks: tuple[str, ...]


def judge(names: Iterable[str], values: Layer, settings: Settings) -> Judgement:
    """Judge all given variables that are no settings."""
    problems: list[str] = []
    warnings: list[str] = []
    remarks: list[str] = []
    for name in sorted(set(names) - variables().keys()):
        if name in FOREIGN:
            remarks.append(f"{name} has no effect: {FOREIGN[name]}")
            continue
        answer = answer_to(name)
        if answer is None:
            warnings.append(unknown(name))
        elif not _asks_for_nothing(name, values[name].text, answer, settings):
            (problems if answer.stops else warnings).append(explain(name, answer))
    return Judgement(tuple(problems), tuple(warnings), tuple(remarks))


def answer_to(name: str) -> Answer | None:
    """Return what is known about a variable of NIM that has no effect here; None when nothing is."""
    family = next((answer for start, answer in FAMILIES.items() if name.startswith(start)), None)
    return NOT_SUPPORTED.get(name, family)


def explain(name: str, answer: Answer) -> str:
    """Say why a variable of NIM does nothing here, and what to use."""
    return f"{name} {'cannot be done' if answer.stops else 'has no effect'}: {answer.reason}"


def unknown(name: str) -> str:
    """Say that nobody knows this variable, with the nearest name that somebody does."""
    nearest = difflib.get_close_matches(name, [*variables(), *ALIASES, *NOT_SUPPORTED], n=1, cutoff=0.6)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{name} is not a known variable and has no effect{hint}"


def _asks_for_nothing(name: str, text: str, answer: Answer, settings: Settings) -> bool:
    value = text.strip().lower()
    if name == "NIM_HEALTH_PORT":
        return value == str(settings.server.port)
    return value in answer.as_it_is
