"""What all request schemas share: strict fields, and errors that name the field by its path in the caller's own JSON.

Pydantic reports unions by internal tags; here they are removed by walking the body that the caller sent. What the
fields mean is each dialect's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from api.errors import BadRequestError, UnknownFieldError

_MAX_REPORTED = 3
_MAX_NAME = 100
"""Characters of a caller's own field name that are repeated in a message."""
_MAX_LENIENT_ROUNDS = 32


class Fields(BaseModel):
    """A JSON object of a request: no unknown fields, no conversions between types, null where a field is optional."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


FieldsT = TypeVar("FieldsT", bound=Fields)
ValueT = TypeVar("ValueT")


def parse_fields(
    model: type[FieldsT], body: dict[str, Any], *, lenient: bool, unsupported: Mapping[str, str]
) -> tuple[FieldsT, tuple[str, ...]]:
    """Validate a body. Returns the fields and, with ``lenient``, the paths of unknown ones that were left out.

    ``unsupported`` explains known top-level fields that this server does not have.

    Raises:
        UnknownFieldError: for an unknown field, unless ``lenient``.
        BadRequestError: naming the field that is wrong.
    """
    ignored: list[str] = []
    for _ in range(_MAX_LENIENT_ROUNDS):
        try:
            return model.model_validate(body), tuple(ignored)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=True, include_input=False)
        unknown = [field_path(item, body) for item in details if item["type"] == "extra_forbidden"]
        if not (lenient and unknown):
            raise _to_error(details, body, unsupported)
        body = copy.deepcopy(body) if not ignored else body
        for path in unknown:
            _remove(body, path)
            ignored.append(_dotted(path))
    raise BadRequestError("The request has too many unknown fields.")


def agree(*given: tuple[str, ValueT | None]) -> ValueT | None:
    """Return the one value that fields of the same meaning hold; None when none is given.

    Raises:
        BadRequestError: when two of them contradict each other; ``param`` is the later one.
    """
    chosen: tuple[str, ValueT] | None = None
    for name, value in given:
        if value is None:
            continue
        if chosen is not None and chosen[1] != value:
            raise BadRequestError(f"`{name}` contradicts `{chosen[0]}`.", param=name)
        chosen = chosen or (name, value)
    return chosen[1] if chosen else None


def field_path(detail: ErrorDetails, body: object) -> tuple[str | int, ...]:
    """Return the path of the field at fault, without the tags of unions."""
    path: list[str | int] = []
    value = body
    last = len(detail["loc"]) - 1
    for index, step in enumerate(detail["loc"]):
        if _has(value, step):
            value = value[step]  # type: ignore[index] # checked by _has
        elif not (detail["type"] == "missing" and index == last):
            continue
        path.append(step)
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path.append(str(detail.get("ctx", {}).get("discriminator", "")).strip("'"))
    return tuple(path)


def _has(value: object, step: str | int) -> bool:
    """Tell whether a decoded value has this member."""
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _to_error(details: list[ErrorDetails], body: object, unsupported: Mapping[str, str]) -> BadRequestError:
    paths = [_dotted(field_path(item, body)) for item in details]
    if details[0]["type"] == "extra_forbidden":
        reason = unsupported.get(paths[0])
        message = f"`{paths[0]}` is not supported: {reason}." if reason else f"Unknown field `{paths[0]}`."
        return UnknownFieldError(message, param=paths[0])
    reported = [f"{path}: {_reason(item)}" for path, item in zip(paths, details, strict=True)]
    more = len(reported) - _MAX_REPORTED
    message = "; ".join(reported[:_MAX_REPORTED]) + (f"; and {more} more" if more > 0 else "")
    code = "missing_required_parameter" if details[0]["type"] == "missing" else "invalid_type_or_value"
    return BadRequestError(f"{message}.", param=paths[0] or None, code=code)


def _reason(detail: ErrorDetails) -> str:
    """Say what is wrong; pydantic's own words, except where they speak of tags."""
    if detail["type"] == "union_tag_not_found":
        return "Field required"
    if detail["type"] == "union_tag_invalid":
        return f"Input should be one of {detail.get('ctx', {}).get('expected_tags', '')}"
    return detail["msg"]


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(step)[:_MAX_NAME] for step in path)


def _remove(body: Any, path: tuple[str | int, ...]) -> None:
    """Delete one field of a decoded body."""
    *parents, last = path
    for step in parents:
        body = body[step]
    del body[last]
