"""The arguments of earlier tool calls: JSON text, as dialects carry it, to the object that the prompt needs."""

from __future__ import annotations

import json
import math

from api.chat.errors import ArgumentsError
from api.chat.request import JsonObject

MAX_DEPTH = 64
"""Deepest nesting of arguments and results that is rendered: far more than any schema, far less than the stack."""


def parse_arguments(text: str | None, *, param: str) -> JsonObject:
    """Decode the arguments of one call. Missing or blank text is the empty object.

    Raises:
        ArgumentsError: when the text is not a JSON object, nests too deep, or holds a number that JSON cannot hold.
    """
    if text is None or not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArgumentsError("the arguments of a tool call must be JSON", param=param) from error
    if not isinstance(value, dict):
        raise ArgumentsError("the arguments of a tool call must be a JSON object", param=param)
    check_json(value, param=param)
    return value


def check_json(value: object, *, param: str, depth: int = 0) -> None:
    """Check that a decoded value can be written as JSON and is not nested too deep.

    Raises:
        ArgumentsError: naming ``param``.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ArgumentsError("a number is too large for JSON", param=param)
    elif isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            raise ArgumentsError(f"the value nests deeper than {MAX_DEPTH} levels", param=param)
        for item in value.values() if isinstance(value, dict) else value:
            check_json(item, param=param, depth=depth + 1)


def _refuse_constant(name: str) -> float:
    """Refuse NaN and the infinities, which Python's decoder takes though JSON has none."""
    msg = f"{name} is not JSON"
    raise ValueError(msg)
