"""What all settings models share: their base, how a field gets its variable, and readers of text values.

Every value arrives as text, from the environment, a file or the command line alike, so the readers here turn text into
what a field wants and leave everything else for the field to refuse.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_AUTOMATIC = ("-1", "auto")
_BY_DEFAULT = ("", "default", "auto")


class SettingsModel(BaseModel):
    """Base of all settings models: frozen, closed, addressable by field name and by variable name."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


def variable(name: str, default: Any, **limits: Any) -> Any:
    """Return a field that the variable ``name`` sets."""
    return Field(default=default, alias=name, **limits)


def read_names(value: object) -> object:
    """Read a list with commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def read_number(value: object) -> object:
    """Read a whole number where a field lists the numbers that it takes: such a field reads no text."""
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def read_automatic(value: object) -> object:
    """Read ``auto`` and ``-1`` as not set."""
    return None if value == -1 or (isinstance(value, str) and value.strip() in _AUTOMATIC) else value


def read_default(value: object) -> object:
    """Read ``default`` and ``auto`` as not set."""
    return None if isinstance(value, str) and value.strip().lower() in _BY_DEFAULT else value


def read_lower(value: object) -> object:
    """Read a word of which the case does not matter."""
    return value.strip().lower() if isinstance(value, str) else value
