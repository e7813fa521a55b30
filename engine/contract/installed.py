"""Compares a contract with an installed package, whose classes it imports."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import TYPE_CHECKING, Any, cast

from engine.contract.entries import UNSTATED, Entry, compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def installed_differences(entry: Entry) -> Iterator[str]:
    """Yield what an installed package lacks of one entry."""
    try:
        found = getattr(importlib.import_module(entry.module), entry.class_name)
    except (ImportError, AttributeError) as error:
        yield f"{entry.name}: not found: {error}"
        return
    yield from compare(entry.name, entry.parameters, _parameters(found))
    for name, parameters in entry.methods.items():
        method = getattr(found, name, None)
        if method is None:
            yield f"{entry.name}.{name}: not found"
        else:
            yield from compare(f"{entry.name}.{name}", parameters, _parameters(method))
    for name in entry.attributes:
        if not _has(found, name):
            yield f"{entry.name}: no attribute {name}"


def _parameters(found: Any) -> Mapping[str, Any]:
    """Return names and defaults of a class's fields, or of the parameters that something takes."""
    fields = getattr(found, "model_fields", None)
    if fields is not None:
        return {name: field.get_default(call_default_factory=False) for name, field in fields.items()}
    if dataclasses.is_dataclass(found):
        return {field.name: field.default for field in dataclasses.fields(cast("type", found))}
    if hasattr(found, "__annotations__") and isinstance(found, type) and issubclass(found, dict):
        return dict.fromkeys(found.__annotations__, UNSTATED)
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return {}
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def _has(found: Any, name: str) -> bool:
    """Tell whether instances have an attribute: the class does, or some method of it or of its bases sets it."""
    if hasattr(found, name) or name in getattr(found, "model_fields", {}):
        return True
    family = [base for base in inspect.getmro(found) if base is not object]
    return any(name in inspect.get_annotations(base) or f"self.{name} =" in _text(base) for base in family)


def _text(found: type) -> str:
    try:
        return inspect.getsource(found)
    except (OSError, TypeError):
        return ""
