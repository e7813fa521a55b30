"""Measures on machines that are busy with other things, too."""

from __future__ import annotations

from collections.abc import Callable

_ATTEMPTS = 20


def best(measure: Callable[[], float], *, below: float) -> float:
    """Return the first measurement that is below a bound, or the smallest of many.

    What else runs on a machine can spoil one measurement and even several, but never makes one better.
    """
    smallest = measure()
    for _ in range(_ATTEMPTS):
        if smallest < below:
            break
        smallest = min(smallest, measure())
    return smallest
