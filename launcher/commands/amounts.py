"""Amounts as the commands write and read them: gigabytes as NIM counts them, and tokens such as ``128k``."""

from __future__ import annotations

import math
import re
from typing import Final

from launcher.errors import ExitCode, LaunchError

GIGABYTE: Final = 10**9
_TOKENS: Final = re.compile(r"(\d{1,9})\s*([kKmM]?)\Z")
_TIMES: Final = {"": 1, "k": 1024, "m": 1024**2}
_MEMORY: Final = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)\s*(GiB|GB|G|TiB|TB|T)?\Z", re.IGNORECASE)
_UNITS: Final = {"": 2**30, "g": 2**30, "gib": 2**30, "gb": 10**9, "t": 2**40, "tib": 2**40, "tb": 10**12}


def whole_gigabytes(size: int) -> int:
    """Return bytes in gigabytes, rounded up: what is required."""
    return math.ceil(size / GIGABYTE)


def read_tokens(text: str, option: str) -> int:
    """Read a number of tokens: ``8192``, ``128k`` (131072), ``1m``.

    Raises:
        LaunchError: it is none; ``option`` is named.
    """
    match = _TOKENS.match(text.strip())
    if match is None:
        raise LaunchError(
            ExitCode.BAD_SETTINGS, f"{option} {text!r} is no number of tokens", "write it like 8192 or 128k"
        )
    return int(match[1]) * _TIMES[match[2].lower()]


def read_memory(text: str, option: str) -> int:
    """Read an amount of memory: ``64`` (GiB), ``64GiB``, ``64GB``.

    Raises:
        LaunchError: it is none; ``option`` is named.
    """
    match = _MEMORY.match(text.strip())
    if match is None:
        message = f"{option} {text!r} is no amount of memory"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "write it like 64GiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])
