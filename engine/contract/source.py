"""Compares a contract with a source tree, without running any of it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from engine.contract.entries import UNSTATED, Entry, compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_differences(entry: Entry, tree: Path) -> Iterator[str]:
    """Yield what a source tree lacks of one entry."""
    path = tree / entry.source
    try:
        module = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        yield f"{entry.name}: {entry.source} cannot be read: {error.strerror}"
        return
    except SyntaxError as error:
        yield f"{entry.name}: {entry.source} is no Python: {error}"
        return
    if entry.kind == "constant":
        if entry.class_name not in _assigned(module):
            yield f"{entry.name}: not in {entry.source}"
        return
    classes = {node.name: node for node in ast.walk(module) if isinstance(node, ast.ClassDef)}
    if entry.defined_as not in classes:
        yield f"{entry.name}: no class {entry.defined_as} in {entry.source}"
        return
    family = list(_family(entry.defined_as, classes))
    yield from _missing(entry, family)


def _family(name: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Yield a class and those of its bases that the same file defines."""
    if name not in classes:
        return
    yield classes[name]
    for base in classes[name].bases:
        if isinstance(base, ast.Name):
            yield from _family(base.id, classes)


def _missing(entry: Entry, family: list[ast.ClassDef]) -> Iterator[str]:
    functions: dict[str, Function] = {}
    fields: dict[str, Any] = {}
    attributes: set[str] = set()
    for node in reversed(family):
        own = {item.name: item for item in node.body if isinstance(item, Function)}
        functions |= own
        fields |= _fields(node)
        attributes |= {*own, *_fields(node), *_set_on_self(node)}
    found = fields if entry.kind in ("fields", "keys") else _arguments(functions.get("__init__"))
    yield from compare(entry.name, entry.parameters, found)
    for name, parameters in entry.methods.items():
        if name not in functions:
            yield f"{entry.name}: no method {name} in {entry.source}"
        else:
            yield from compare(f"{entry.name}.{name}", parameters, _arguments(functions[name]))
    for name in entry.attributes:
        if name not in attributes:
            yield f"{entry.name}: no attribute {name} in {entry.source}"


def _fields(node: ast.ClassDef) -> dict[str, Any]:
    """Return a class body's annotated names and their defaults, those within ``Field(default=...)`` too."""
    return {
        item.target.id: _value(item.value)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def _value(node: ast.expr | None) -> Any:
    if isinstance(node, ast.Call):
        stated = [keyword.value for keyword in node.keywords if keyword.arg == "default"]
        return _value(stated[0]) if stated else UNSTATED
    return node.value if isinstance(node, ast.Constant) else UNSTATED


def _arguments(function: Function | None) -> dict[str, Any]:
    if function is None:
        return {}
    taken = function.args
    names = [argument.arg for argument in (*taken.posonlyargs, *taken.args)]
    found: dict[str, Any] = dict.fromkeys(names, UNSTATED)
    for name, default in zip(reversed(names), reversed(taken.defaults), strict=False):
        found[name] = _value(default)
    for argument, keyword_default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True):
        found[argument.arg] = _value(keyword_default)
    return found


def _set_on_self(node: ast.ClassDef) -> set[str]:
    return {
        item.attr
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute)
        and isinstance(item.ctx, ast.Store)
        and isinstance(item.value, ast.Name)
        and item.value.id == "self"
    }


def _assigned(module: ast.Module) -> set[str]:
    return {
        target.id
        for item in module.body
        if isinstance(item, ast.Assign)
        for target in item.targets
        if isinstance(target, ast.Name)
    }
